"""What a channel must be before it is stored: everything that would otherwise only fail with a client's request."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

from ...adapters.operations import OPERATIONS
from ...adapters.outgoing import TRANSPORTS_OWN
from ...adapters.providers.provider import whole_url
from ...adapters.providers.registry import PROVIDERS
from ...config.channel import LONGEST_MODEL, Channel, ChannelType, MappingCycle, mapped_model

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
VISIBLE = re.compile(r"[!-~]+")
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5
LONGEST = {
    "name": 128,
    "base_url": 512,
    "api_version": 64,
    "organization": 128,
    "test_model": LONGEST_MODEL,
    "proxy": 512,
    "tag": 64,
}
PATHS = (*(operation.path for operation in OPERATIONS if operation.relayed), "/chat/completions")
"""What is appended to a base URL, and what stands behind it on the pages of vendors."""
LONGEST_GROUP = 64
MOST_KEYS = 10_000


class ChannelProblem(ValueError):
    """A channel that cannot work. `field` is the part of it that is wrong, `problem` what is wrong with it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


def channel_type(text: str) -> ChannelType:
    """A type by its number or its provider's name, in any case. Raises `ChannelProblem`."""
    if text.isdecimal():
        known = next((type for type in PROVIDERS if int(type) == int(text)), None)
    else:
        wanted = _plain(text)
        known = next(
            (type for type, provider in PROVIDERS.items() if wanted in (_plain(provider.name), _plain(type.name))), None
        )
    if known is None:
        choices = ", ".join(f"{provider.name} ({int(type)})" for type, provider in sorted(PROVIDERS.items()))
        raise ChannelProblem("type", f"must be one of {choices}, not {text!r}")
    return known


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def check_channel(channel: Channel) -> None:
    """Raise `ChannelProblem` for the first thing that is wrong."""
    for problem in _problems(channel):
        raise problem


def _problems(channel: Channel) -> Iterator[ChannelProblem]:
    if not channel.name or channel.name != channel.name.strip():
        yield ChannelProblem("name", "must not be empty, nor begin or end with a blank")
    for field, longest in LONGEST.items():
        text: str = getattr(channel, field)
        if len(text) > longest or not text.isprintable():
            yield ChannelProblem(field, f"must be at most {longest} printable characters")
    yield from _address_problems(channel)
    yield from _key_problems(channel)
    yield from _name_problems("models", channel.models, LONGEST_MODEL)
    yield from _name_problems("groups", channel.groups, LONGEST_GROUP)
    if channel.weight < 0:
        yield ChannelProblem("weight", f"must be 0 or more, not {channel.weight}")
    yield from _mapping_problems(channel.model_mapping)
    for status, answer in channel.status_code_mapping.items():
        if not 300 <= status <= 599 or not 400 <= answer <= 599:
            problem = f"must map statuses from 300 to 599 to errors from 400 to 599, not {status} to {answer}"
            yield ChannelProblem("status_code_mapping", problem)
    yield from _header_problems(channel.header_override)
    for field in ("organization", "api_version"):  # they become a header and a part of the URL
        if (text := getattr(channel, field)) and not VISIBLE.fullmatch(text):
            yield ChannelProblem(field, "must be visible ASCII characters without blanks")


def _address_problems(channel: Channel) -> Iterator[ChannelProblem]:
    provider = PROVIDERS[channel.type]
    if channel.base_url:
        url = _split("base_url", channel.base_url, ("http", "https"))
        if "@" in url.netloc:
            yield ChannelProblem("base_url", "must not hold a user or password: that is what keys are for")
        if "#" in channel.base_url:
            yield ChannelProblem("base_url", "must not have a fragment")
        if provider.address is not whole_url:
            if "?" in channel.base_url:
                yield ChannelProblem("base_url", f"must not have a query: {provider.name} has a path appended to it")
            if ending := next((path for path in PATHS if url.path.rstrip("/").endswith(path)), None):
                yield ChannelProblem("base_url", f"must not end in {ending}, which is appended to it")
    elif not provider.base_url:
        yield ChannelProblem("base_url", f"is required: {provider.name} has no address of its own")
    if channel.proxy:
        _split("proxy", channel.proxy, ("http", "https", "socks5"))


def _split(field: str, text: str, schemes: tuple[str, ...]) -> SplitResult:
    """Raises `ChannelProblem`, which does not show the URL: it may hold a password."""
    if not VISIBLE.fullmatch(text):
        raise ChannelProblem(field, "must be percent-encoded: ASCII without blanks")
    try:
        url = urlsplit(text)
        port_fits = url.port != 0
    except ValueError as error:
        raise ChannelProblem(field, f"is no URL: {error}") from None
    if url.scheme not in schemes or not url.hostname or not port_fits:
        raise ChannelProblem(field, f"must be a URL that begins with {' or '.join(f'{each}://' for each in schemes)}")
    return url


def _key_problems(channel: Channel) -> Iterator[ChannelProblem]:
    if not channel.keys and PROVIDERS[channel.type].key_needed:
        yield ChannelProblem("keys", f"is required: {PROVIDERS[channel.type].name} serves nobody without one")
    if len(channel.keys) > MOST_KEYS:
        yield ChannelProblem("keys", f"must be at most {MOST_KEYS} keys")
    for index, key in enumerate(channel.keys):
        if not VISIBLE.fullmatch(key.reveal()):
            yield ChannelProblem("keys", f"must be visible ASCII characters without blanks; number {index + 1} is not")


def _name_problems(field: str, names: tuple[str, ...], longest: int) -> Iterator[ChannelProblem]:
    if not names:
        yield ChannelProblem(field, "must name at least one")
    for name in names:
        if not 1 <= len(name) <= longest or not name.isprintable():
            yield ChannelProblem(field, f"must be names of at most {longest} printable characters")


def _mapping_problems(mapping: Mapping[str, str]) -> Iterator[ChannelProblem]:
    yield from _name_problems("model_mapping", (*mapping, *mapping.values(), "-"), LONGEST_MODEL)
    for model in mapping:
        try:
            mapped_model(mapping, model)
        except MappingCycle as cycle:
            yield ChannelProblem("model_mapping", f"goes round in a circle: {cycle}")


def _header_problems(override: Mapping[str, str]) -> Iterator[ChannelProblem]:
    for name, value in override.items():
        if not TOKEN.fullmatch(name):
            yield ChannelProblem("header_override", f"has a name that no header can have: {name!r}")
        if name.lower().encode() in TRANSPORTS_OWN:
            yield ChannelProblem("header_override", f"must not set {name}: the gateway does")
        if not VALUE.fullmatch(value):
            yield ChannelProblem("header_override", f"has a line break or another control character in {name}")


def string_mapping(field: str, value: Mapping[str, Any]) -> dict[str, str]:
    """A JSON object whose values are all texts. Raises `ChannelProblem`."""
    if not all(isinstance(each, str) for each in value.values()):
        raise ChannelProblem(field, "must be an object whose values are all strings")
    return cast("dict[str, str]", dict(value))


def status_mapping(field: str, value: Mapping[str, Any]) -> dict[int, int]:
    """A JSON object of statuses, which may be numbers or strings of digits. Raises `ChannelProblem`."""
    try:
        return {int(status): int(str(answer)) for status, answer in value.items()}
    except ValueError:
        raise ChannelProblem(field, "must map statuses to statuses, such as 404 to 503") from None
