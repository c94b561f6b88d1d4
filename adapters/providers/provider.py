"""
A provider is its differences: where it lives, how it is asked, how a key is shown, what it cannot do.

Most are a row in `compatible.py`; one that needs code has a file of its own beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from ...config.channel import Channel, ChannelType
from ...config.secret import Secret
from ..operations import Operation
from ..outgoing import Headers, Transport


@dataclass(frozen=True, slots=True)
class Target:
    """
    What a provider's URL is made of. `base_url` is as it was configured, `api_version` the channel's own, else the
    site's default.
    """

    base_url: str
    operation: Operation
    upstream_model: str
    api_version: str
    query: str

    @property
    def root(self) -> str:
        """The base URL, ready for a path: without a slash at its end."""
        return self.base_url.rstrip("/")


Address = Callable[[Target], str]
Auth = Callable[[Secret, Channel], Headers]


def same_path(target: Target) -> str:
    """The caller's path behind the provider's base URL. A base that already ends in the version is not doubled."""
    root = target.root
    # Behind the scheme, for a host may be named v1.
    doubled = root.partition("://")[2].endswith("/v1")
    return root + (target.operation.path.removeprefix("/v1") if doubled else target.operation.path)


def whole_url(target: Target) -> str:
    """The base URL is the complete URL of every request; `{model}` in it is the model's name, its slashes kept."""
    return target.base_url.replace("{model}", quote(target.upstream_model, safe="/:@"))


def bearer(key: Secret, channel: Channel) -> Headers:
    """`Authorization: Bearer` (RFC 6750)."""
    return [(b"authorization", b"Bearer " + key.reveal().encode())] if key else []


OPENAI_OPERATIONS = frozenset(
    {
        "chat_completions",
        "completions",
        "embeddings",
        "moderations",
        "images_generations",
        "images_edits",
        "images_variations",
        "audio_speech",
        "audio_transcriptions",
        "audio_translations",
    }
)
TEXT_OPERATIONS = frozenset({"chat_completions", "completions", "embeddings"})


@dataclass(frozen=True, slots=True)
class Provider:
    """
    One row. `base_url` is "" where an operator must give one.

    `operations` are the names of those it serves. `stream_usage`: it understands `stream_options.include_usage`.
    `unsupported` are body fields that it refuses and that are therefore taken out.
    """

    type: ChannelType
    name: str
    base_url: str = ""
    operations: frozenset[str] = OPENAI_OPERATIONS
    address: Address = same_path
    auth: Auth = bearer
    stream_usage: bool = True
    unsupported: tuple[str, ...] = ()
    transport: Transport = "http"
    key_needed: bool = True
