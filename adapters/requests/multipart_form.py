"""Multipart forms (RFC 7578): where each field stands in the bytes, so that one can be edited and the rest stay."""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ..errors import BadRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 1000
PARAMETER = re.compile(rb';[ \t]*+([^=;"]++)=(?:[ \t]*+"(?:[^"\\]|\\.)*+")?+', re.DOTALL)
TEXT_FIELDS = frozenset({"model", "n", "stream", "size", "quality"})
"""What is asked and what it costs: some servers take a file for a field, or undo a transfer encoding, others do not."""
PLAIN_ENCODINGS = frozenset({b"7bit", b"8bit", b"binary"})
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
BOUNDARY = re.compile(rb"boundary[*0-9]*+[ \t]*+=", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Form:
    """
    A parsed form. `fields` are the text parts by name; `spans` where their values stand in the body.

    `files` maps the names of file parts to their sizes in bytes.
    """

    fields: dict[str, str] = field(default_factory=dict[str, str])
    spans: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    files: dict[str, int] = field(default_factory=dict[str, int])


def read_form(body: bytes, content_type: bytes) -> Form:
    """
    The form's parts.

    Raises `BadRequest` when the boundary is missing, the body is no form, or a text field stands twice. So it does for
    whatever two parsers may read in two ways, such as a part with two names: the upstream must see the model we saw.

    Arrays are spelled `name[]` in OpenAI's forms, and may repeat.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 200 or len(BOUNDARY.findall(content_type)) != 1:
        raise BadRequest("The form's Content-Type must name one boundary.", code="invalid_form")
    reader = _Reader(body)
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise BadRequest(f"The body is not a multipart form: {error}", code="invalid_form") from None
    if not reader.finished:
        raise BadRequest("The form ends before its closing boundary.", code="invalid_form")
    delimiter = b"--" + boundary
    if body.count(b"\n" + delimiter) + body.startswith(delimiter) != reader.count + 1:
        raise BadRequest("A part of the form holds a line that begins like the boundary.", code="invalid_form")
    return reader.form


class _Reader:
    """Gathers what the parser calls back with. Offsets are absolute, for the body is fed whole."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.form = Form()
        self.finished = False
        self.count = 0

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self.part_begin,
            "on_header_begin": self.header_begin,
            "on_header_field": self.header_field,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_headers_finished": self.headers_finished,
            "on_part_data": self.part_data,
            "on_part_end": self.part_end,
            "on_end": self.end,
        }

    def part_begin(self) -> None:
        self.count += 1
        if self.count > MAX_PARTS:
            raise BadRequest(f"The form has more than {MAX_PARTS} parts.", code="invalid_form")
        self.disposition: bytes | None = None
        self.is_encoded = False

    def header_begin(self) -> None:
        self.header = self.value = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def header_end(self) -> None:
        if CONTROL.search(self.value):
            raise BadRequest("A header of a form's part holds a control character.", code="invalid_form")
        name = self.header.lower()
        if name == b"content-disposition":
            if self.disposition is not None:
                raise BadRequest("A part of the form has two Content-Disposition headers.", code="invalid_form")
            self.disposition = self.value
        elif name == b"content-transfer-encoding":
            self.is_encoded = self.is_encoded or self.value.strip().lower() not in PLAIN_ENCODINGS

    def headers_finished(self) -> None:
        parameters = [name.strip().lower() for name in PARAMETER.findall(self.disposition or b"")]
        # `name*` and `name*0` are a name for those who read RFC 2231, as Go's servers do.
        if len(set(parameters)) < len(parameters) or any(each.startswith(b"name*") for each in parameters):
            raise BadRequest("A part of the form has two names.", code="invalid_form")
        kind, options = parse_options_header(self.disposition)
        if self.disposition is not None and kind.lower() != b"form-data":
            raise BadRequest("A part of the form is no form-data.", code="invalid_form")
        self.name = options.get(b"name", b"").decode("utf-8", "replace")
        self.is_file = b"filename" in options or any(each.startswith(b"filename*") for each in parameters)
        self.text: list[bytes] = []
        self.size, self.start = 0, -1

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self.size += end - start
        if not self.is_file:
            self.start = start if self.start < 0 else self.start
            self.text.append(data[start:end])

    def part_end(self) -> None:
        name = self.name
        if self.is_encoded and name in TEXT_FIELDS:
            raise BadRequest(f"{name} must be sent without a transfer encoding.", param=name, code="invalid_form")
        if self.is_file:
            if name in TEXT_FIELDS:
                raise BadRequest(f"{name} must be a text field, not a file.", param=name, code="invalid_type")
            self.form.files[name] = self.form.files.get(name, 0) + self.size
            return
        if name in self.form.fields and not name.endswith("[]"):
            raise BadRequest(f"{name} stands more than once in the form.", param=name, code="duplicate_parameter")
        value = b"".join(self.text)
        self.form.fields[name] = value.decode("utf-8", "replace")
        # The parser hands over a false start of a boundary from a buffer of its own; offsets into that mean nothing.
        if value and self.body[self.start : self.start + len(value)] == value:
            self.form.spans[name] = (self.start, self.start + len(value))

    def end(self) -> None:
        self.finished = True
