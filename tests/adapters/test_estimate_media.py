"""Recordings by their heads, and the files of a form."""

import pytest
from tollway.adapters.call import Call
from tollway.adapters.media_estimate import form_files, held_seconds, likely_seconds
from tollway.adapters.operations import BY_PATH


def wave(rate: int, width: int, kind: int = 1) -> bytes:
    fields = [(16, 4), (kind, 2), (1, 2), (rate, 4), (rate * width, 4), (width, 2), (8 * width, 2)]
    return b"RIFF\0\0\0\0WAVEfmt " + b"".join(value.to_bytes(size, "little") for value, size in fields)


def mp3(head: bytes, tag: int = 0) -> bytes:
    return (b"ID3\4\0\0" + bytes([0, 0, tag >> 7, tag & 0x7F]) + b"\0" * tag if tag else b"") + head


@pytest.mark.parametrize(
    ("head", "size", "likely", "held"),
    [
        pytest.param(wave(16_000, 2), 320_000, 10, 10, id="WAV"),
        pytest.param(wave(48_000, 4), 1_920_000, 10, 10, id="WAV in stereo"),
        pytest.param(wave(8_000, 1, 6), 80_000, 10, 27, id="WAV that is compressed"),
        pytest.param(wave(4_000_000, 8), 3_072_000, 2, 2, id="WAV of a rate beyond reason"),
        pytest.param(wave(0, 0), 80_000, 10, 27, id="WAV of no rate"),
        pytest.param(mp3(b"\xff\xfb\x90\0"), 160_000, 10, 54, id="MP3 at 128 kbit/s"),
        pytest.param(mp3(b"\xff\xf3\x40\0", 1000), 40_000, 10, 14, id="MP3 at 32 kbit/s, behind a tag"),
        pytest.param(mp3(b"\xff\xf3\x10\0"), 30_000, 10, 10, id="MP3 at 8 kbit/s counts as 24"),
        pytest.param(mp3(b"\xff\xfb\xf0\0"), 80_000, 10, 27, id="MP3 of no rate"),
        pytest.param(b"OggS" + b"\0" * 40, 80_000, 10, 27, id="anything else"),
        pytest.param(b"", 0, 0, 0, id="nothing"),
        pytest.param(b"ID3", 3, 1, 1, id="a tag that breaks off"),
    ],
)
@pytest.mark.parametrize("start", [0, 7])
def test_how_long_a_recording_lasts(head: bytes, size: int, likely: int, held: int, start: int) -> None:
    data = b"\0" * start + head
    assert (likely_seconds(data, start, size), held_seconds(data, start, size)) == (likely, held)


PART = b'--B\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
FILE = b'; filename="a"'


def call(body: bytes, content_type: bytes = b"multipart/form-data; boundary=B") -> Call:
    return Call(BY_PATH["/v1/images/edits"], "m", "m", body=body, content_type=content_type)


@pytest.mark.parametrize("preamble", [b"", b"nobody reads this\r\n"])
@pytest.mark.parametrize("contents", [[b"one"], [b"one", b"", b"\r\n\r\nfilename"], [b"--A", b"x" * 100_000]])
def test_the_files_of_a_form(contents: list[bytes], preamble: bytes) -> None:
    field = PART % (b"prompt", b"", b'a text; filename="no"')
    body = preamble + field + field.join(PART % (b"image[]", FILE, content) for content in contents) + field + b"--B--"
    assert [body[start : start + size] for start, size in form_files(call(body))] == contents


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"no form", b"multipart/form-data; boundary=B"), (b"--B\r\n", b"multipart/form-data"), (b"", b"")],
)
def test_what_has_no_files_counts_whole(body: bytes, content_type: bytes) -> None:
    assert form_files(call(body, content_type)) == [(0, len(body))]
