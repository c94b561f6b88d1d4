"""OpenAI's Python SDK, unmodified, against the built-in upstream: every operation it has and we serve."""

import asyncio
import base64

import openai
import pytest

from .conftest import ClientOf, UpstreamOf
from .gateway import Account, Gateway
from .scripted import always
from .wire import DONE, MODEL, event, stream

ECHO_MODELS = (
    MODEL,
    "text-embedding-3-small",
    "dall-e-2",
    "dall-e-3",
    "gpt-image-1",
    "gpt-4o-mini-transcribe",
    "tts-1",
    "whisper-1",
    "omni-moderation-latest",
    "gpt-3.5-turbo-instruct",
)
HI = [{"role": "user", "content": "hello wide world"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
PNG = ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(64), "image/png")
WAV = ("a.wav", b"RIFF" + bytes(64), "audio/wav")


@pytest.fixture(scope="module")
def caller(gateway: Gateway) -> Account:
    account = gateway.account()
    gateway.channel(account, models=ECHO_MODELS)
    return account


@pytest.fixture
def client(client_of: ClientOf, caller: Account) -> openai.OpenAI:
    return client_of(caller.key)


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HI)
    assert answer.choices[0].message.content == "hello wide world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_chat_tells_its_cost_and_its_request_id(client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=HI, extra_headers={"x-request-id": "mine-1"}
    )
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-tollway-attempts"] == "1"
    assert float(answer.headers["x-tollway-cost"]) > 0
    assert float(answer.headers["x-tollway-overhead-ms"]) >= 0


def test_a_stream_has_no_usage_unless_asked(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=HI, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello wide world"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_has_usage_when_asked(client: openai.OpenAI) -> None:
    *chunks, last = client.chat.completions.create(
        model=MODEL, messages=HI, stream=True, stream_options={"include_usage": True}
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello wide world"
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 3


def test_the_stream_helper_puts_a_message_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=HI) as stream:
        assert stream.get_final_completion().choices[0].message.content == "hello wide world"


def test_a_tool_is_called(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HI, tools=[WEATHER], tool_choice="required")
    (call,) = answer.choices[0].message.tool_calls or ()
    assert (call.type, call.function.name) == ("function", "weather")
    assert answer.choices[0].finish_reason == "tool_calls"


def tool_chunk(index: int, **call: object) -> bytes:
    choice = {"index": 0, "delta": {"tool_calls": [{"index": index, **call}]}, "finish_reason": None}
    return event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


def called(index: int, city: str) -> bytes:
    return tool_chunk(index, id=f"call_{city}", type="function", function={"name": "weather", "arguments": ""})


def argued(index: int, text: str) -> bytes:
    return tool_chunk(index, function={"arguments": text})


def test_two_tools_are_called_at_once_in_a_stream(
    gateway: Gateway, account: Account, client_of: ClientOf, upstream: UpstreamOf
) -> None:
    events = called(0, "oslo"), called(1, "rome"), argued(0, '{"c'), argued(1, '{"c":2}'), argued(0, '":1}'), DONE
    gateway.channel(account, upstream(always(stream(*events))).url)
    with client_of(account.key).chat.completions.stream(model=MODEL, messages=HI, tools=[WEATHER]) as answer:
        calls = answer.get_final_completion().choices[0].message.tool_calls or []
    assert [(call.id, call.function.arguments) for call in calls] == [
        ("call_oslo", '{"c":1}'),
        ("call_rome", '{"c":2}'),
    ]


def test_results_of_tools_go_back(client: openai.OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    assert answer.choices[0].message.content == "hello wide world"


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="once upon a time")
    assert answer.choices[0].text == "once upon a time"


@pytest.mark.parametrize("format", ["float", "base64", None], ids=["as floats", "as base64", "by default"])
def test_embeddings(format: str | None, client: openai.OpenAI) -> None:
    asked = {} if format is None else {"encoding_format": format}
    answer = client.embeddings.create(model="text-embedding-3-small", input=["one", "two"], **asked)
    assert [item.index for item in answer.data] == [0, 1]
    if format == "base64":
        assert isinstance(answer.data[0].embedding, str)
    else:
        assert len(answer.data[0].embedding) == 8
        assert sum(number * number for number in answer.data[0].embedding) == pytest.approx(1, abs=1e-5)
    assert answer.usage.prompt_tokens > 0


def test_images_are_generated(client: openai.OpenAI) -> None:
    answer = client.images.generate(model="dall-e-3", prompt="a cat", n=2)
    pictures = [base64.b64decode(item.b64_json or "") for item in answer.data or ()]
    assert len(pictures) == 2
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_images_stream(client: openai.OpenAI) -> None:
    seen = list(client.images.generate(model="gpt-image-1", prompt="a cat", n=2, stream=True, partial_images=1))
    kinds = ["image_generation.partial_image", "image_generation.completed"]
    assert [each.type for each in seen] == kinds * 2
    assert base64.b64decode(seen[-1].b64_json).startswith(b"\x89PNG")


def test_images_are_edited(client: openai.OpenAI) -> None:
    answer = client.images.edit(model="dall-e-2", image=[PNG, PNG], mask=PNG, prompt="a hat")
    assert base64.b64decode((answer.data or ())[0].b64_json or "").startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_images_are_varied_by_the_default_model(client: openai.OpenAI) -> None:
    answer = client.images.create_variation(image=PNG)
    assert base64.b64decode((answer.data or ())[0].b64_json or "").startswith(b"\x89PNG")


def test_speech(client: openai.OpenAI) -> None:
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input="hello")
    assert answer.content[:4] + answer.content[8:12] == b"RIFFWAVE"
    assert answer.response.headers["content-type"] == "audio/wav"


def test_speech_is_streamed(client: openai.OpenAI) -> None:
    with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="hello") as answer:
        assert b"".join(answer.iter_bytes()).startswith(b"RIFF")


def test_a_transcription_as_json(client: openai.OpenAI) -> None:
    answer = client.audio.transcriptions.create(model="whisper-1", file=WAV, prompt="good day")
    assert answer.text == "good day"


def test_a_transcription_streams(client: openai.OpenAI) -> None:
    answer = client.audio.transcriptions.create(
        model="gpt-4o-mini-transcribe", file=WAV, prompt="good day", stream=True
    )
    assert [each.type for each in answer] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]


def test_a_transcription_as_text(client: openai.OpenAI) -> None:
    answer = client.audio.transcriptions.create(model="whisper-1", file=WAV, prompt="good day", response_format="text")
    assert answer == "good day\n"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_a_translation(client: openai.OpenAI) -> None:
    assert client.audio.translations.create(model="whisper-1", file=WAV).text == "A sound of 68 bytes."


@pytest.mark.parametrize("model", ["omni-moderation-latest", None], ids=["by name", "by the default model"])
def test_a_moderation(model: str | None, client: openai.OpenAI) -> None:
    asked = {} if model is None else {"model": model}
    answer = client.moderations.create(input=["fine", "also fine"], **asked)
    assert [result.flagged for result in answer.results] == [False, False]


def test_models_are_listed_and_shown(client: openai.OpenAI) -> None:
    assert sorted(model.id for model in client.models.list()) == sorted(ECHO_MODELS)
    assert client.models.retrieve(MODEL).id == MODEL


def test_the_asynchronous_client_serves_many_at_once(gateway: Gateway, caller: Account) -> None:
    async def ask_all() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=caller.key, max_retries=0) as client:
            texts = [[{"role": "user", "content": f"text {number}"}] for number in range(40)]
            answers = [client.chat.completions.create(model=MODEL, messages=messages) for messages in texts]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*answers)]

    assert asyncio.run(ask_all()) == [f"text {number}" for number in range(40)]
