"""Answers that came compressed although nobody asked."""

import gzip
import zlib

import pytest
from tollway.adapters.errors import UpstreamError, UpstreamGarbage, UpstreamTruncated
from tollway.gateway.upstream.encoding import PIECE, Decoder
from tollway.gateway.upstream.port import Upstream

from .helpers import PATIENT, ask, body_of, get, post, wire
from .scripted import ends, holds, upstream

pytestmark = pytest.mark.anyio

TEXT = b"data: " + b"The quick brown fox. " * 5000 + b"\n\n"


def raw_deflate(data: bytes, level: int = 6) -> bytes:
    compressor = zlib.compressobj(level, wbits=-15)
    return compressor.compress(data) + compressor.flush()


ENCODED = [
    pytest.param(b"gzip", gzip.compress(TEXT), id="gzip"),
    pytest.param(b"X-GZIP", gzip.compress(TEXT), id="x-gzip in capitals"),
    pytest.param(b"gzip, identity", gzip.compress(TEXT), id="gzip and nothing"),
    pytest.param(b"gzip", gzip.compress(TEXT[:999]) + gzip.compress(TEXT[999:]), id="gzip in two members"),
    pytest.param(b"deflate", zlib.compress(TEXT), id="deflate"),
    pytest.param(b"deflate", raw_deflate(TEXT), id="deflate without zlib's header"),
    pytest.param(b"identity", TEXT, id="identity"),
]


@pytest.mark.parametrize(("encoding", "encoded"), ENCODED)
async def test_it_is_decoded_as_it_passes(transport: Upstream, encoding: bytes, encoded: bytes) -> None:
    answer = wire(encoded, b"content-encoding: " + encoding, b"content-type: text/plain")
    async with upstream(holds(answer[:150], answer[150:])) as server:
        incoming = await transport.send(post(server.url), PATIENT)
        assert incoming.headers == [(b"content-type", b"text/plain")]
        assert await body_of(incoming) == TEXT


@pytest.mark.parametrize(("encoding", "encoded"), ENCODED[:-1])
def test_it_may_be_cut_anywhere(encoding: bytes, encoded: bytes) -> None:
    decoder = Decoder(encoding.split(b",")[0].lower())
    got = b""
    for i in range(len(encoded)):
        decoder.feed(encoded[i : i + 1])
        while piece := decoder.take():
            got += piece
    assert got == TEXT
    assert decoder.whole


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
async def test_no_body_needs_no_decoding(transport: Upstream, encoding: bytes) -> None:
    line = b"content-encoding: " + encoding
    async with upstream(ends(wire(b"", line))) as server:
        assert await ask(transport, post(server.url)) == (200, b"")
    async with upstream(ends(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n" + line + b"\r\n\r\n")) as server:
        assert await ask(transport, get(server.url, "HEAD")) == (200, b"")


@pytest.mark.parametrize(
    ("encoding", "body", "error"),
    [
        pytest.param(b"gzip", gzip.compress(TEXT)[:-5], UpstreamTruncated, id="gzip without its end"),
        pytest.param(b"gzip", gzip.compress(TEXT)[:7], UpstreamTruncated, id="half of gzip's header"),
        pytest.param(b"deflate", zlib.compress(TEXT)[:-3], UpstreamTruncated, id="deflate without its end"),
        pytest.param(b"deflate", b"x", UpstreamTruncated, id="one byte of deflate"),
        pytest.param(b"gzip", TEXT, UpstreamGarbage, id="plain text that says gzip"),
        pytest.param(b"deflate", TEXT, UpstreamGarbage, id="plain text that says deflate"),
        pytest.param(b"gzip", gzip.compress(TEXT) + b"tail", UpstreamGarbage, id="gzip with something behind it"),
        pytest.param(b"deflate", zlib.compress(TEXT) + b"tail", UpstreamGarbage, id="deflate with something behind it"),
        pytest.param(b"gzip", gzip.compress(bytes(64 * 1024 * 1024)), UpstreamGarbage, id="a bomb"),
    ],
)
async def test_what_does_not_decode_is_an_error(
    transport: Upstream, encoding: bytes, body: bytes, error: type[UpstreamError]
) -> None:
    async with upstream(ends(wire(body, b"content-encoding: " + encoding))) as server:
        with pytest.raises(error):
            await ask(transport, post(server.url))


def test_a_bomb_goes_off_early_and_in_small_pieces() -> None:
    decoder = Decoder(b"gzip")
    decoder.feed(gzip.compress(bytes(256 * 1024 * 1024)))
    for _ in range(64):
        try:
            assert 0 < len(decoder.take()) <= PIECE
        except UpstreamGarbage:
            return
    pytest.fail("64 MiB were decoded without a word")


@pytest.mark.parametrize("size", [PIECE, PIECE + 1, PIECE + 6, PIECE + 12, 2 * PIECE + 100])
def test_nothing_stays_behind_when_a_piece_is_full(size: int) -> None:
    # zlib can hold output back after it has taken all its input.
    decoder = Decoder(b"deflate")
    decoder.feed(raw_deflate(bytes(size), level=1))
    got = 0
    while piece := decoder.take():
        got += len(piece)
    assert got == size
    assert decoder.whole


def test_much_text_is_no_bomb() -> None:
    body = b"".join(b'data: {"i": %d, "delta": "token"}\n\n' % i for i in range(400_000))
    decoder = Decoder(b"gzip")
    decoder.feed(gzip.compress(body))
    got = b""
    while piece := decoder.take():
        got += piece
    assert got == body
    assert decoder.whole
