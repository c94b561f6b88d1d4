"""A lower limit of output, written into the caller's own bytes."""

from typing import Any

import orjson
import pytest
from tollway.adapters.call import Call
from tollway.adapters.errors import BadRequest
from tollway.adapters.operations import BY_PATH
from tollway.adapters.requests.json_splice import only_string
from tollway.adapters.requests.output_limit import with_output_limit

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def call_of(body: bytes, *, path: str = CHAT, **more: Any) -> Call:
    document = orjson.loads(body)
    model = document["model"]
    return Call(
        BY_PATH[path], model, model, body=body, document=document, model_span=only_string(body, "model", model), **more
    )


@pytest.mark.parametrize(
    ("body", "path", "limited"),
    [
        pytest.param(
            b'{"model": "gpt-4o", "max_tokens": 1000 , "n":1}',
            CHAT,
            b'{"model": "gpt-4o", "max_tokens": 7 , "n":1}',
            id="the older name, where it stands",
        ),
        pytest.param(
            b'{"model":"gpt-4o","max_completion_tokens":1000}',
            CHAT,
            b'{"model":"gpt-4o","max_completion_tokens":7}',
            id="the newer name",
        ),
        pytest.param(
            b'{"max_completion_tokens":1000,"model":"m","max_tokens":900}',
            CHAT,
            b'{"max_completion_tokens":7,"model":"m","max_tokens":7}',
            id="both",
        ),
        pytest.param(
            b'{"max_completion_tokens":1000,"model":"m","max_tokens":3}',
            CHAT,
            b'{"max_completion_tokens":7,"model":"m","max_tokens":3}',
            id="one that asks for fewer stays",
        ),
        pytest.param(b'{"model":"m","max_tokens":null}', CHAT, b'{"model":"m","max_tokens":7}', id="null is no limit"),
        pytest.param(b'{"model":"m","max_tokens":0}', CHAT, b'{"model":"m","max_tokens":7}', id="nor is 0"),
        pytest.param(b'{"model":"m"}', CHAT, b'{"max_tokens":7,"model":"m"}', id="none"),
        pytest.param(
            b'{"model":"o3-mini"}',
            CHAT,
            b'{"max_completion_tokens":7,"model":"o3-mini"}',
            id="none, of a model that refuses the older name",
        ),
        pytest.param(
            b'{"model":"openai/gpt-5.1"}',
            CHAT,
            b'{"max_completion_tokens":7,"model":"openai/gpt-5.1"}',
            id="by a vendor",
        ),
        pytest.param(b'{"model":"olmo"}', CHAT, b'{"max_tokens":7,"model":"olmo"}', id="a name that only begins so"),
        pytest.param(
            b'{"model":"gpt-5"}', COMPLETIONS, b'{"max_tokens":7,"model":"gpt-5"}', id="an operation without the newer"
        ),
    ],
)
def test_the_limit_is_lowered_in_place(body: bytes, path: str, limited: bytes) -> None:
    call = with_output_limit(call_of(body, path=path, output_limit=1000), 7)
    assert call.body == limited
    assert call.document == orjson.loads(limited)
    assert call.output_limit == 7
    if call.model_span is not None:
        start, end = call.model_span
        assert orjson.loads(call.body[start:end]) == call.model


def test_a_body_that_asks_for_no_more_keeps_its_bytes() -> None:
    before = call_of(b'{"model":"m","max_tokens":7}', output_limit=7)
    assert with_output_limit(before, 7) == before


def test_a_body_that_cannot_be_edited_without_guessing_is_refused() -> None:
    with pytest.raises(BadRequest, match="more than once"):
        with_output_limit(call_of(b'{"model":"m","max_tokens":9,"max_tokens":10}', output_limit=10), 7)
