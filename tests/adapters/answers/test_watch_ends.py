"""How a watched stream tells that it is over: end marks, finish reasons, and what only looks like them."""

import pytest
from tollway.adapters.answers.sse import first_document, has_done, has_event
from tollway.adapters.answers.watch import StreamWatch
from tollway.config.usage import Usage

STOP = b'data: {"choices":[{"index":%d,"delta":{},"finish_reason":"stop"}]}\n\n'
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}\n\n'


@pytest.mark.parametrize(
    ("data", "done"),
    [
        pytest.param(b"data: [DONE]\n\n", True, id="alone"),
        pytest.param(b"data:[DONE]\n\n", True, id="without a blank"),
        pytest.param(DELTA + b"data: [DONE]\r\n\r\n", True, id="behind an event"),
        pytest.param(b"data: [DONE]\n\n: bye\n\n", True, id="before a comment"),
        pytest.param(b'data: {"content":"[DONE]"}\n\n', False, id="in a text"),
        pytest.param(b'data: {"content":"data: [DONE]"}\n\n', False, id="in a text, with its field's name"),
        pytest.param(b"xdata: [DONE]\n\n", False, id="in another field"),
        pytest.param(b'data: [DONE]\n\ndata: {"content":"[DONE]"}\n\n', True, id="before a text with another"),
        pytest.param(DELTA, False, id="not at all"),
    ],
)
def test_the_end_mark(data: bytes, done: bool) -> None:
    assert has_done(data) is done


@pytest.mark.parametrize("choices", [1, 2, 3])
def test_a_stream_is_finished_when_each_choice_is(choices: int) -> None:
    watch = StreamWatch(choices=choices)
    watch.feed(DELTA)
    for index in range(choices):
        assert not watch.finished
        watch.feed(STOP % index)
    assert watch.finished
    assert not watch.ended


def test_finish_reasons_may_come_in_one_piece_and_with_blanks() -> None:
    watch = StreamWatch(choices=2)
    watch.feed(STOP % 0 + STOP.replace(b'":"stop', b'": "stop') % 1)
    assert watch.finished


@pytest.mark.parametrize("left", [b"", b"\n", b": bye", STOP % 0, (STOP % 0)[:-2], (STOP % 0)[:30]])
def test_a_stream_whose_choices_are_finished_needs_no_end_mark(left: bytes) -> None:
    watch = StreamWatch()
    watch.feed(DELTA + STOP % 0 + left)
    cut = left in (b": bye", (STOP % 0)[:30])
    assert watch.finish().endswith(b"data: [DONE]\n\n") is not cut
    assert watch.ended is not cut


@pytest.mark.parametrize("spelled", [b'"finish_reason":""', b'"finish_reason": ""'])
def test_an_empty_finish_reason_is_none(spelled: bytes) -> None:
    watch = StreamWatch()
    for _ in range(3):
        watch.feed(DELTA.replace(b'"finish_reason":null', spelled))
    assert not watch.finished
    watch.feed(STOP % 0)
    assert watch.finished


def test_a_byte_order_mark_before_the_first_event_is_passed_over() -> None:
    data = b"\xef\xbb\xbf" + DELTA
    assert has_event(data)
    assert first_document(data) is not None


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(b'data: {"choices":[{"delta":{"content":"' + b"word " * 40 + b'","logprob":NaN}}]}\n\n', id="NaN"),
        pytest.param(b'data: {"choices":[{"delta":{"content":"' + b"\xff " * 90 + b'"}}]}\n\n', id="no UTF-8"),
    ],
)
def test_events_that_are_no_json_for_us_count_by_their_length(event: bytes) -> None:
    watch = StreamWatch()
    assert watch.feed(event) == event
    assert watch.delivered_tokens() >= 40


def test_events_without_content_count_for_nothing() -> None:
    watch = StreamWatch()
    watch.feed(b"\n\ndata:\n\ndata: {}\n\n: a comment that is a little longer\n\n")
    assert watch.delivered_tokens() == 0


PICTURE = (
    b'data: {"type":"image_generation.completed","b64_json":"aGk=","usage":'
    b'{"input_tokens":10,"output_tokens":%d,"output_tokens_details":{"image_tokens":%d}}}\n\n'
)
PICTURES = ("image_generation.completed",)


@pytest.mark.parametrize("together", [True, False], ids=["in one piece", "one by one"])
def test_pictures_end_one_by_one_and_their_usages_are_added(together: bool) -> None:
    watch = StreamWatch(PICTURES, choices=3)
    events = [PICTURE % (tokens, tokens) for tokens in (300, 200, 400)]
    for data in [b"".join(events)] if together else events:
        assert not watch.ended
        watch.feed(data)
    assert watch.ended
    assert watch.usage == Usage(10, 900, output_image_tokens=900)


def test_more_ends_than_were_asked_for_are_not_added() -> None:
    watch = StreamWatch(PICTURES, choices=2)
    watch.feed((PICTURE % (300, 300)) * 1000)
    assert watch.usage == Usage(10, 600, output_image_tokens=600, suspicious=True)


def test_one_end_may_be_that_of_all_pictures() -> None:
    watch = StreamWatch(PICTURES, choices=3)
    watch.feed(PICTURE % (900, 900))
    assert not watch.ended
    assert watch.finish() == b""
    assert watch.ended
    assert watch.usage == Usage(10, 900, output_image_tokens=900)


def test_pictures_without_any_end_are_cut_off() -> None:
    watch = StreamWatch(PICTURES, choices=3)
    watch.feed(b'data: {"type":"image_generation.partial_image","b64_json":"aGk="}\n\n')
    watch.finish()
    assert not watch.ended
