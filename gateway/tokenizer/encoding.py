"""
Which model reads text by which encoding, and the two encodings, from ranks in the package: nothing is fetched.

Loading takes about half a second, once in a process, and the memory stays: about 80 MiB for `o200k_base`, 45 for
`cl100k_base`. For a part of it (0.2 s and 0.1 s) the tokenizer holds the interpreter, so that no other thread runs.
"""

import lzma
from binascii import a2b_base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tiktoken import Encoding

RANKS = Path(__file__).with_name("ranks")

EncodingName = Literal["o200k_base", "cl100k_base"]

PREFIXES: tuple[tuple[str, EncodingName], ...] = (
    ("gpt-5", "o200k_base"),
    ("gpt-4o-", "o200k_base"),
    ("gpt-4.1-", "o200k_base"),
    ("gpt-4.5-", "o200k_base"),
    ("gpt-oss-", "o200k_base"),
    ("chatgpt-", "o200k_base"),
    ("o1-", "o200k_base"),
    ("o3-", "o200k_base"),
    ("o4-", "o200k_base"),
    ("gpt-4-", "cl100k_base"),
    ("gpt-3.5-", "cl100k_base"),
    ("gpt-35-", "cl100k_base"),
    ("text-embedding-3-", "cl100k_base"),
    ("text-embedding-ada-002-", "cl100k_base"),
    ("davinci-002-", "cl100k_base"),
    ("babbage-002-", "cl100k_base"),
)
"""How names begin that have an encoding (tiktoken, `model.py`). A prefix with a dash at its end is a whole word."""

PATTERNS: dict[EncodingName, tuple[str, ...]] = {
    "o200k_base": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ),
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)",
        r"[^\r\n\p{L}\p{N}]?+\p{L}++",
        r"\p{N}{1,3}+",
        r" ?[^\s\p{L}\p{N}]++[\r\n]*+",
        r"\s++$",
        r"\s*[\r\n]",
        r"\s+(?!\S)",
        r"\s",
    ),
}
"""How a text is cut into words before they become tokens: the first that fits (tiktoken, `openai_public.py`)."""


def encoding_for(model: str) -> EncodingName | None:
    """
    The encoding of a model; None for those whose vendors publish none.

    A fine-tuned model (`ft:gpt-4o:...`) has that of its base; a vendor before its name (`openai/gpt-4o`) is left out.
    """
    base = model.lower().rpartition("/")[2].removeprefix("ft:").partition(":")[0] + "-"
    return next((name for prefix, name in PREFIXES if base.startswith(prefix)), None)


@cache
def load_encoding(name: EncodingName) -> "Encoding":
    """The encoding, without special tokens: in a text that somebody sent, they are text. Raises `OSError`."""
    from tiktoken import Encoding

    return Encoding(name, pat_str="|".join(PATTERNS[name]), mergeable_ranks=load_ranks(name), special_tokens={})


def load_ranks(name: EncodingName) -> dict[bytes, int]:
    """The number of each token, from lines of `<token in base64> <number>`. Raises `OSError`."""
    ranks: dict[bytes, int] = {}
    for line in read_ranks(name).splitlines():
        token, _, rank = line.partition(b" ")
        ranks[a2b_base64(token)] = int(rank)
    return ranks


def read_ranks(name: EncodingName) -> bytes:
    """The file of ranks, as OpenAI publishes it. Raises `OSError`."""
    return lzma.decompress((RANKS / f"{name}.tiktoken.xz").read_bytes())
