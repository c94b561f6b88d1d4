"""Multipart forms: what is in them, where it stands, and what is refused because it can be read in two ways."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.adapters.errors import BadRequest
from tollway.adapters.requests.multipart_form import MAX_PARTS, read_form

steady = settings(derandomize=True, deadline=None, max_examples=200)

TYPE = b"multipart/form-data; boundary=XX"


def part(name: str, value: bytes | str, *, more: str = "") -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return f'--XX\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--XX--\r\n"


def raw(headers: bytes, value: bytes = b"v") -> bytes:
    """A part with headers as given."""
    return b"--XX\r\n" + headers + b"\r\n\r\n" + value + b"\r\n"


FILE = part("file", b"\x00\xff\r\n--X", more='; filename="a.wav"')

CONTENTS = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"--", b"X", b"\r\n--X", b"\r\n--", b"-", b"a", b"\xff", b'"', b"\x00"]),
    max_size=8,
).map(b"".join)


def harmless(content: bytes) -> bool:
    """No line of it begins like the boundary; the separator before a part's content ends a line."""
    return b"\n--XX" not in b"\n" + content


@steady
@given(st.lists(CONTENTS.filter(harmless), max_size=5), st.booleans())
def test_fields_are_where_they_stand(contents: list[bytes], as_files: bool) -> None:
    more = '; filename="f"' if as_files else ""
    body = form(*(part(f"p{index}", content, more=more) for index, content in enumerate(contents)), FILE)
    read = read_form(body, TYPE)
    if as_files:
        assert read.files == {**{f"p{i}": len(content) for i, content in enumerate(contents)}, "file": 7}
        return
    assert read.files == {"file": 7}
    assert read.fields == {f"p{i}": content.decode("utf-8", "replace") for i, content in enumerate(contents)}
    for index, content in enumerate(contents):
        start, end = read.spans.get(f"p{index}", (0, 0))
        assert body[start:end] == content


@steady
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes, value: bytes) -> None:
    for attempt in (body, form(part("model", value)), b"--XX\r\n" + body + b"\r\n--XX--", form(raw(body))):
        with suppress(BadRequest):
            read_form(attempt, TYPE)


@steady
@given(st.integers(min_value=0))
def test_a_form_that_is_cut_off_is_refused(at: int) -> None:
    body = form(part("model", "whisper-1"), FILE)[: -len(b"--\r\n")]
    with pytest.raises(BadRequest) as refused:
        read_form(body[: at % (len(body) + 1)], TYPE)
    assert refused.value.code == "invalid_form"


@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param(b"multipart/form-data", id="no boundary"),
        pytest.param(b"multipart/form-data; boundary=", id="an empty boundary"),
        pytest.param(b"multipart/form-data; boundary=" + b"X" * 201, id="a boundary of 201 bytes"),
        pytest.param(b"multipart/form-data; boundary=YY", id="another boundary"),
        pytest.param(b"multipart/form-data; boundary=XX; boundary=YY", id="two boundaries"),
        pytest.param(b"multipart/form-data; boundary=YY; Boundary=XX", id="two boundaries, one in capitals"),
        pytest.param(b"multipart/form-data; boundary=XX; boundary*=utf-8''YY", id="a second boundary, encoded"),
        pytest.param(b"multipart/form-data; boundary*0=X; boundary*1=X", id="a boundary in pieces"),
    ],
)
def test_the_boundary_must_be_named_once(content_type: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        read_form(form(part("model", "whisper-1")), content_type)
    assert refused.value.code == "invalid_form"


@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param(b'multipart/form-data; boundary="XX"', id="quoted"),
        pytest.param(b"multipart/form-data; charset=utf-8; boundary=XX", id="behind another parameter"),
        pytest.param(b"Multipart/Form-Data; BOUNDARY=XX", id="in capitals"),
    ],
)
def test_spellings_of_a_boundary(content_type: bytes) -> None:
    assert read_form(form(part("model", "whisper-1")), content_type).fields == {"model": "whisper-1"}


@pytest.mark.parametrize(
    ("headers", "name", "is_file"),
    [
        pytest.param(
            b"Content-Disposition: form-data; name=model", "model", False, id="a name without quotes, as .NET"
        ),
        pytest.param(
            b'content-disposition: form-data; name="model"\r\nContent-Length: 1', "model", False, id="lower case"
        ),
        pytest.param(
            b"Content-Disposition: form-data; name=image; filename=a.png; filename*=utf-8''a.png",
            "image",
            True,
            id="two spellings of a file's name",
        ),
        pytest.param('Content-Disposition: form-data; name="模型"'.encode(), "模型", False, id="beyond ASCII"),
        pytest.param(
            b'Content-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: 8bit',
            "model",
            False,
            id="a transfer encoding that changes nothing, as Apache's HttpClient",
        ),
        pytest.param(
            b'Content-Disposition: form-data; name="file"; filename="a"\r\nContent-Transfer-Encoding: base64',
            "file",
            True,
            id="an encoded file",
        ),
        pytest.param(
            b"Content-Disposition: form-data; name=image; filename*=utf-8''a.png",
            "image",
            True,
            id="an encoded file's name",
        ),
        pytest.param(
            b'Content-Disposition: form-data; filename="a; name=x"; name="file"',
            "file",
            True,
            id="a name inside quotes",
        ),
    ],
)
def test_spellings_of_a_name(headers: bytes, name: str, is_file: bool) -> None:
    read = read_form(form(raw(headers)), TYPE)
    assert (read.files if is_file else read.fields) == {name: 1 if is_file else "v"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(form(part("model", "a"), part("model", "b")), id="a text field twice"),
        pytest.param(form(raw(b'Content-Disposition: form-data; name="x"; name="model"')), id="two names"),
        pytest.param(
            form(raw(b'Content-Disposition: form-data; Name="x"; name="model"')), id="two names, one in capitals"
        ),
        pytest.param(
            form(raw(b"Content-Disposition: form-data; name=\"x\"; name*=utf-8''model")), id="a second name, encoded"
        ),
        pytest.param(
            form(raw(b'Content-Disposition: form-data; name="x"\r\nContent-Disposition: form-data; name="model"')),
            id="two dispositions",
        ),
        pytest.param(
            form(
                raw(b'X-A: b\nContent-Disposition: form-data; name="model"\r\nContent-Disposition: form-data; name="x"')
            ),
            id="a header hidden behind a bare line feed",
        ),
        pytest.param(form(raw(b'Content-Disposition: form-data; name*0="mod"; name*1="el"')), id="a name in pieces"),
        pytest.param(
            form(raw(b"Content-Disposition: form-data; name*0*=utf-8''model")), id="an encoded piece of a name"
        ),
        pytest.param(form(raw(b'Content-Disposition: attachment; name="model"')), id="no field of a form"),
        pytest.param(form(raw(b'Content-Disposition: form-data; name="model\x00"')), id="a zero byte in a name"),
        pytest.param(form(part("model", "m", more='; filename="m"')), id="the model as a file"),
        pytest.param(form(part("model", "m", more="; filename*=utf-8''m")), id="the same, with an encoded name"),
        pytest.param(form(part("model", "m", more='; filename*0="m"')), id="the same, with a name in pieces"),
        pytest.param(form(part("size", "1024x1536", more='; filename="s"')), id="a picture's size as a file"),
        pytest.param(
            form(part("size", "=31024x1536", more="\r\nContent-Transfer-Encoding: quoted-printable")),
            id="a picture's size in an encoding that Go's servers undo",
        ),
        pytest.param(
            form(part("prompt", 'p\r\n--XXL\r\nContent-Disposition: form-data; name="model"')), id="a longer boundary"
        ),
        pytest.param(
            form(part("prompt", 'p\n--XX\nContent-Disposition: form-data; name="model"\n\nb')),
            id="a boundary after a bare line feed",
        ),
        pytest.param(
            part("prompt", "p") + b"--XX--\r\n" + form(part("model", "b")), id="a second form behind the first"
        ),
        pytest.param(b"\r\njunk" + form(part("model", "b")), id="something before the form"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read_form(body, TYPE)


def test_arrays_and_files_may_repeat() -> None:
    image = part("image[]", b"1234", more='; filename="a.png"')
    read = read_form(
        form(image, image, part("timestamp_granularities[]", "word"), part("timestamp_granularities[]", "segment")),
        TYPE,
    )
    assert read.files == {"image[]": 8}
    assert read.fields == {"timestamp_granularities[]": "segment"}


def test_a_thousand_parts_are_read_and_one_more_is_not() -> None:
    parts = [part(f"p{index}", "v") for index in range(MAX_PARTS)]
    assert len(read_form(form(*parts), TYPE).fields) == MAX_PARTS == 1000
    with pytest.raises(BadRequest, match="more than 1000 parts"):
        read_form(form(*parts, part("more", "v")), TYPE)


def test_a_leading_line_break_moves_the_spans() -> None:
    body = b"\r\n" + form(part("model", "whisper-1"))
    start, end = read_form(body, TYPE).spans["model"]
    assert body[start:end] == b"whisper-1"
