"""
The journal's files, to the byte. Numbers are little-endian and unsigned.

A holder (one start of one process) writes the segments `<holder>.<number>.journal`, the number from 1 and with at
least eight digits, and keeps `<holder>.lock` locked (flock) for as long as it lives. A segment has its full size from
the start: a header, records without anything between them, zeros. A file of zeros alone is a segment not yet begun.

Header, 156 bytes

    0    8   magic, 89 54 57 4A 0D 0A 1A 0A
    8    2   version of this format, 1
    10   2   size of the header, 156
    12   4   number of the segment
    16   8   sequence number of the first settle that can stand in it
    24   64  installation, ASCII, padded with NUL
    88   64  holder, ASCII, padded with NUL
    152  4   CRC-32 of the bytes before

Every version keeps the first twelve bytes as they are here and the CRC in the header's last four, and no version's
header is larger than 4,096 bytes.

Record, 24 bytes and its payload

    0    4   CRC-32 of the rest of the record and its payload, begun at (salt + offset of the record) mod 2**32
    4    2   kind: F5 6F open, F5 73 settle, F5 72 release
    6    2   size n of the payload, 0 to 65,535
    8    8   ticket: the request, unique in its holder; 0 is nobody's
    16   8   sequence number: a settle's own (1, 2, 3 ... in its holder), else that of the last settle before it
    24   n   payload

The salt is the CRC-32 of installation, NUL, holder, NUL and the segment's number in decimal, all ASCII. So no record
is taken for one of another file or of another place in its own, and what a segment holds can be read without its
header. No kind's first byte occurs in UTF-8, which makes records easy to find behind a damaged place.

A settle in a segment counts only while its number is below the first one of the next segment: the writer may have had
to give up a write that failed, and has then written the settle again in the next segment.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from re import compile as pattern
from struct import Struct
from typing import Final, NamedTuple, TypeAlias
from zlib import crc32

MAGIC: Final = b"\x89TWJ\r\n\x1a\n"
VERSION: Final = 1
HEADER: Final = Struct("<8sHHIQ64s64s")
CHECKSUM: Final = Struct("<I")
HEADER_SIZE: Final = HEADER.size + CHECKSUM.size
SMALLEST_SEGMENT: Final = 4096
LARGEST_SEGMENT: Final = 64 * 1024 * 1024
PREFIX: Final = Struct("<8sHH")

HEADER_LIMIT: Final = 4096
"""What must be read to know any version's header."""

HEAD: Final = Struct("<HHQQ")
pack_head: Final = HEAD.pack
pack_checksum: Final = CHECKSUM.pack
RECORD_SIZE: Final = CHECKSUM.size + HEAD.size
"""Of a record without its payload."""
PAYLOAD_LIMIT: Final = 0xFFFF

OPEN: Final = 0x6FF5
SETTLE: Final = 0x73F5
RELEASE: Final = 0x72F5
KIND: Final = pattern(rb"\xf5[osr]")
KINDS: Final = frozenset({OPEN, SETTLE, RELEASE})

Entry: TypeAlias = tuple[int, int, bytes]
"""What is to be written: kind, ticket, payload."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says of itself. `first` is the number of the first settle that can stand in it."""

    installation: str
    holder: str
    number: int
    first: int

    def encode(self) -> bytes:
        fields = HEADER.pack(
            MAGIC,
            VERSION,
            HEADER_SIZE,
            self.number,
            self.first,
            self.installation.encode("ascii"),
            self.holder.encode("ascii"),
        )
        return fields + CHECKSUM.pack(crc32(fields))


class UnknownVersion(ValueError):
    """The header is whole, but of another version of this format. The message says so without naming the file."""


def read_header(data: bytes) -> Header | None:
    """The header at the start of a file; None when there is none that is whole. Raises `UnknownVersion`."""
    if len(data) < PREFIX.size:
        return None
    magic, version, size = PREFIX.unpack_from(data)
    if magic != MAGIC or not PREFIX.size + CHECKSUM.size <= size <= len(data):
        return None
    (checksum,) = CHECKSUM.unpack_from(data, size - CHECKSUM.size)
    if crc32(data[: size - CHECKSUM.size]) != checksum:
        return None
    if version != VERSION or size != HEADER_SIZE:
        raise UnknownVersion(f"it is of version {version} of the format, and this Tollway reads {VERSION}")
    _, _, _, number, first, installation, holder = HEADER.unpack_from(data)
    return Header(
        installation=installation.rstrip(b"\0").decode("ascii", "replace"),
        holder=holder.rstrip(b"\0").decode("ascii", "replace"),
        number=number,
        first=first,
    )


def salt_of(installation: str, holder: str, number: int) -> int:
    """Where the checksums of this segment's records begin."""
    return crc32(f"{installation}\0{holder}\0{number}".encode("ascii"))


def encode(entries: list[Entry], *, salt: int, offset: int, limit: int, last: int) -> tuple[bytes, int]:
    """
    The bytes of as many of `entries`, from the first, as fit between `offset` and `limit` of the file; how many.

    `last` is the number of the last settle written so far.
    """
    parts: list[bytes] = []
    for kind, ticket, payload in entries:
        end = offset + RECORD_SIZE + len(payload)
        if end > limit:
            break
        if kind == SETTLE:
            last += 1
        body = pack_head(kind, len(payload), ticket, last) + payload
        parts.append(pack_checksum(crc32(body, (salt + offset) & 0xFFFFFFFF)))
        parts.append(body)
        offset = end
    return b"".join(parts), len(parts) >> 1


class Record(NamedTuple):
    offset: int
    kind: int
    ticket: int
    sequence: int
    payload: bytes


class Hole(NamedTuple):
    """Bytes that are no record. `number` is the record's that should stand there, counted from 1."""

    number: int
    offset: int
    end: int


def read_records(data: bytes, *, end: int, salt: int, sequences: range) -> Iterator[Record | Hole]:
    """
    The records of a segment in their order, and the holes between them; zeros at the end are none.

    Reads up to `end`, where nothing but zeros follows. A record whose sequence number is not in `sequences` is none.
    """
    offset, number = HEADER_SIZE, 0
    while offset < end:
        number += 1
        record = _record_at(data, offset, salt, sequences)
        if record is None:
            record = _next_record(data, offset + 1, end, salt, sequences)
            yield Hole(number, offset, end if record is None else record.offset)
            if record is None:
                return
            number += 1
        yield record
        offset = record.offset + RECORD_SIZE + len(record.payload)


def _record_at(data: bytes, offset: int, salt: int, sequences: range) -> Record | None:
    body = offset + CHECKSUM.size
    if offset + RECORD_SIZE > len(data):
        return None
    kind, size, ticket, sequence = HEAD.unpack_from(data, body)
    end = offset + RECORD_SIZE + size
    if kind not in KINDS or end > len(data) or sequence not in sequences:
        return None
    (checksum,) = CHECKSUM.unpack_from(data, offset)
    if crc32(data[body:end], (salt + offset) & 0xFFFFFFFF) != checksum:
        return None
    return Record(offset, kind, ticket, sequence, data[offset + RECORD_SIZE : end])


def _next_record(data: bytes, start: int, end: int, salt: int, sequences: range) -> Record | None:
    for found in KIND.finditer(data, start + CHECKSUM.size, end):
        record = _record_at(data, found.start() - CHECKSUM.size, salt, sequences)
        if record is not None:
            return record
    return None
