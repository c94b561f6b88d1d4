"""Recordings by their heads, and the files of a form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollway.adapters.call import Call
from tollway.adapters.media.recording_length import held_seconds, likely_seconds, told_seconds
from tollway.adapters.operations import BY_PATH
from tollway.adapters.usage.images_and_audio import form_files, sound_seconds


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
        pytest.param(mp3(b"\xff\xf3\x10\0"), 30_000, 10, 30, id="MP3 at 8 kbit/s counts as 24"),
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


def flac(seconds: int) -> bytes:
    fields = 44_100 << 44 | 1 << 41 | 15 << 36 | 44_100 * seconds
    return b"fLaC\x80\0\0\x22" + b"\0" * 10 + fields.to_bytes(8) + b"\0" * 100


def ogg(head: bytes, samples: int) -> bytes:
    pages = [b"OggS\0\2" + each.to_bytes(8, "little", signed=True) + b"\0" * 14 for each in (0, samples)]
    return pages[0] + head + b"\0" * 100_000 + pages[1] + b"\0" * 100


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4) + kind + content


def mvhd(rate: int, duration: int, *, wide: bool = False) -> bytes:
    if wide:
        return box(b"mvhd", b"\1\0\0\0" + b"\0" * 16 + rate.to_bytes(4) + duration.to_bytes(8) + b"\0" * 80)
    return box(b"mvhd", b"\0" * 12 + rate.to_bytes(4) + duration.to_bytes(4) + b"\0" * 80)


FTYP, MDAT = box(b"ftyp", b"M4A \0\0\0\0"), box(b"mdat", b"\0" * 1000)
LARGE = b"\0\0\0\1mdat" + (1016).to_bytes(8) + b"\0" * 1000
VORBIS = b"\1vorbis\0\0\0\0\1" + (16_000).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        pytest.param(flac(100), 100, id="FLAC"),
        pytest.param(b"fLaC", 0, id="FLAC that breaks off"),
        pytest.param(ogg(b"OpusHead", 48_000 * 700 + 1), 701, id="Opus"),
        pytest.param(ogg(VORBIS, 16_000 * 90), 90, id="Vorbis"),
        pytest.param(ogg(b"Speex   ", 16_000 * 90), 0, id="another kind of Ogg"),
        pytest.param(ogg(b"OpusHead", 48_000) + b"\x01" * 70_000, 0, id="Opus whose last page is too long"),
        pytest.param(ogg(b"OpusHead", -1), 0, id="Opus of no length"),
        pytest.param(ogg(b"OpusHead", 2**62), 1401, id="a length beyond belief"),
        pytest.param(FTYP + box(b"moov", mvhd(1000, 61_001)) + MDAT, 62, id="MP4"),
        pytest.param(FTYP + MDAT + box(b"moov", mvhd(1000, 60_000)), 60, id="MP4, at its end"),
        pytest.param(FTYP + LARGE + box(b"moov", mvhd(600, 36_000, wide=True)), 60, id="MP4, in wide fields"),
        pytest.param(FTYP + box(b"moov", mvhd(0, 60_000)), 0, id="MP4 of no rate"),
        pytest.param(FTYP + box(b"moov", MDAT), 0, id="MP4 without its header"),
        pytest.param(FTYP + b"\0\0\0\0mdat" + b"\0" * 99, 0, id="MP4 that goes on to its end"),
        pytest.param(FTYP + box(b"free", b"") * 100 + box(b"moov", mvhd(1, 9)), 0, id="MP4 of too many boxes"),
        pytest.param(FTYP + b"\0\0\0\x70moov", 0, id="MP4 that breaks off"),
        pytest.param(b"", 0, id="nothing"),
        pytest.param(wave(16_000, 2), 0, id="anything else"),
    ],
)
@pytest.mark.parametrize("start", [0, 7])
def test_how_long_a_recording_says_that_it_lasts(data: bytes, seconds: int, start: int) -> None:
    assert told_seconds(b"\0" * start + data, start, len(data)) == seconds


@pytest.mark.parametrize(
    ("data", "likely", "held"), [(ogg(b"OpusHead", 48_000 * 700), 700, 700), (ogg(b"OpusHead", 48_000), 1, 34)]
)
def test_a_hold_goes_by_what_a_file_says_only_where_that_is_more(data: bytes, likely: int, held: int) -> None:
    asked = call(b"--B\r\n" + b"\r\n--B--".join([b'X: filename="a"\r\n\r\n' + data, b""]))
    assert (sound_seconds(asked, most=False), sound_seconds(asked, most=True)) == (likely, held)


@given(st.sampled_from([b"fLaC", b"OggS", b"\0\0\0\x10ftyp"]), st.binary(max_size=200))
def test_no_recording_is_an_accident(head: bytes, rest: bytes) -> None:
    data = head + rest
    assert 0 <= told_seconds(data, 0, len(data)) <= 601


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
