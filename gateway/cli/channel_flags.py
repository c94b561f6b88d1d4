"""The flags that describe a channel: the same to create one and to change one."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ...config.channel import Channel
from ...config.secret import Secret
from .arguments import cache_ratio, json_object, names, or_empty, secret_from_stdin, switch, whole
from .channel_rules import ChannelProblem, channel_type, check_channel, status_mapping, string_mapping
from .failures import Usage

MOST_WEIGHT = 1_000_000
MOST_PRIORITY = 10**9
FLAGS = {"groups": "--group"}
"""Fields whose flag is not spelled as the field is."""

TEXTS = ("name", "base_url", "api_version", "organization", "test_model", "proxy", "tag")
AS_GIVEN = ("models", "groups", "priority", "weight", "key_mode", "disconnect", "auto_ban", "param_override")


def add_flags(parser: ArgumentParser, *, create: bool) -> None:
    """Every flag; what a channel cannot be without is required to create one."""

    def add(*names: str, help: str, **rest: Any) -> None:
        # Whoever changes a channel leaves what he does not name as it is: there are no defaults then.
        parser.add_argument(*names, help=help if create else help.partition(". Default:")[0], **rest)

    add("--name", required=create, help="what you call it")
    add(
        "--type",
        required=create,
        metavar="TYPE",
        help="the provider, by number or by name, as `channel types` lists them",
    )
    add(
        "--base-url",
        metavar="URL",
        help="where it lives; may end in /v1 or not. Of Custom: the whole URL of every request, in which {model} is the"
        " model's name. Default: the provider's own",
    )
    add("--key", action="append", metavar="KEY", help="an upstream key, or several between commas; may be repeated")
    add("--key-stdin", action="store_true", help="read the keys from standard input, between commas or line breaks")
    add("--models", type=names, required=create, metavar="A,B", help="the names by which clients ask for its models")
    add("--group", dest="groups", type=names, metavar="A,B", help="the user groups that it serves. Default: default")
    add(
        "--priority",
        type=whole(-MOST_PRIORITY, MOST_PRIORITY),
        metavar="N",
        help="channels of a higher priority are tried first. Default: 0",
    )
    add("--weight", type=whole(0, MOST_WEIGHT), metavar="N", help="its share inside its priority. Default: 1")
    add("--model-mapping", type=json_object, metavar="JSON", help="clients' name of a model -> the upstream's name")
    add("--status-code-mapping", type=json_object, metavar="JSON", help="the upstream's status -> what it counts as")
    add("--header-override", type=json_object, metavar="JSON", help="headers to set; {api_key} in a value is the key")
    add("--param-override", type=json_object, metavar="JSON", help="fields to set in every JSON body")
    add("--key-mode", choices=("random", "polling"), help="how several keys take turns. Default: random")
    add("--api-version", metavar="V", help="for providers that want one, such as Azure")
    add("--organization", metavar="O", help="the OpenAI organization to charge")
    add("--test-model", metavar="M", help="the model that `channel test` asks. Default: the first that it can ask")
    add("--proxy", metavar="URL", help="an egress proxy: http, https or socks5")
    add("--tag", metavar="T", help="a label of your own")
    add(
        "--disconnect",
        choices=("cancel", "drain"),
        help="when the client hangs up: cancel stops the upstream, drain reads on to learn the usage. Default: cancel",
    )
    add(
        "--prompt-cache-ratio",
        type=or_empty(cache_ratio, ""),
        metavar="R",
        help="what a cached input token costs here, as a share of an input token's price: 0 to 1, or '' for what the"
        " price says. Default: ''",
    )
    add(
        "--auto-ban",
        type=switch,
        metavar="true|false",
        help="take keys out of use that the upstream refuses for good. Default: true",
    )


def edits(arguments: Namespace) -> dict[str, Any]:
    """The fields that the flags name, as a `Channel` holds them. Raises `Usage`."""
    given: dict[str, Any] = {name: value for name, value in vars(arguments).items() if value is not None}
    found = {name: given[name] for name in (*TEXTS, *AS_GIVEN) if name in given}
    if "prompt_cache_ratio" in given:
        ratio = given["prompt_cache_ratio"]
        found["prompt_cache_ratio"] = None if ratio == "" else ratio
    try:
        if "type" in given:
            found["type"] = channel_type(given["type"])
        if "status_code_mapping" in given:
            found["status_code_mapping"] = status_mapping("status_code_mapping", given["status_code_mapping"])
        for name in ("model_mapping", "header_override"):
            if name in given:
                found[name] = string_mapping(name, given[name])
    except ChannelProblem as problem:
        raise refused(problem) from None
    if arguments.key is not None or arguments.key_stdin:
        keys = _keys(arguments.key or ())
        if arguments.key_stdin:
            from_stdin = _keys([secret_from_stdin("Key")])
            if not from_stdin:
                raise Usage("argument --key-stdin: standard input held no key")
            keys = tuple(dict.fromkeys((*keys, *from_stdin)))
        # Numbers of disabled keys mean nothing for new keys.
        found |= {"keys": keys, "disabled_keys": frozenset[int]()}
    return found


def edited(channel: Channel, changes: dict[str, Any], arguments: Namespace) -> Channel:
    """The channel with the changes that the arguments describe. Raises `Usage` if it could not work then."""
    after = replace(channel, **changes)
    try:
        check_channel(after)
    except ChannelProblem as problem:
        raise refused(
            problem, keys_flag="--key-stdin" if arguments.key_stdin and not arguments.key else "--key"
        ) from None
    return after


def refused(problem: ChannelProblem, *, keys_flag: str = "--key") -> Usage:
    flags = FLAGS | {"keys": keys_flag}
    flag = flags.get(problem.field, f"--{problem.field.replace('_', '-')}")
    return Usage(f"argument {flag}: {problem.problem}")


def _keys(texts: Iterable[str]) -> tuple[Secret, ...]:
    parts = (part.strip() for text in texts for part in text.replace("\n", ",").split(","))
    return tuple(Secret(part) for part in dict.fromkeys(part for part in parts if part))
