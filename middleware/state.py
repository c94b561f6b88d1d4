"""
What layers know about one request: one `RelayState` under `scope["state"]["tollway"]`, and the values in it.

Each field has one writer and stays empty where that layer is not mounted:

| field               | written by                           | read by                                            |
|---------------------|--------------------------------------|----------------------------------------------------|
| request_id, started | request_id                           | error_envelope, access_log, token_quota, endpoint  |
| operation           | whoever asks first (`operation_of`)  | most layers                                        |
| principal           | token_auth                           | rate_limit, token_quota, channel_select, metering  |
| call                | intake, model_suffix, then metering  | everything further in                              |
| hold                | token_quota                          | metering                                           |
| plan                | channel_select                       | failover                                           |
| attempt, failures   | failover, once per attempt           | endpoint, metering, access_log                     |
| watched             | endpoint: it will write `outcome`    | metering, which then need not look on              |
| outcome             | endpoint                             | metering, failover                                 |
| charge              | metering                             | rate_limit, prometheus, access_log                 |
| error               | error_envelope                       | access_log                                         |
"""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, NoReturn, Protocol

from msgspec import UNSET, Struct, UnsetType

from ..adapters.call import Call
from ..adapters.operations import Operation
from ..adapters.usage.prompt_texts import Texts
from ..config.channel import Channel
from ..config.pricing import Usage
from ..config.tariff import Tariff


@dataclass(frozen=True, slots=True)
class Principal:
    """
    Who is calling: a token and the user who owns it.

    `group` is the one that routes and prices (the token's own, else the user's). `models` are the only names the token
    may use, or None. `networks` are the only addresses it may come from, or (). Limits of 0 mean "the default".
    """

    token_id: int
    user_id: int
    token_name: str = ""
    username: str = ""
    group: str = "default"
    user_group: str = "default"
    is_admin: bool = False
    unlimited: bool = False
    models: frozenset[str] | None = None
    networks: tuple[str, ...] = ()
    expires_at: float | None = None
    """Seconds since the epoch, or None for never."""
    disabled: Literal["", "token", "user", "group"] = ""
    """What is switched off, if anything is."""
    exhausted: bool = False
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    parallel_requests: int = 0


class Candidate(Struct, frozen=True):
    """One way to serve a call: a channel and one of its keys."""

    channel: Channel
    key_index: int


class Attempt(Struct, frozen=True):
    """The candidate being tried. `number` counts from 1 over the whole request."""

    candidate: Candidate
    number: int

    @property
    def channel(self) -> Channel:
        return self.candidate.channel


Ending = Literal["completed", "failed", "truncated", "cancelled"]
"""`completed`: whole. `failed`: with an error inside. `truncated`: it broke off. `cancelled`: the client left."""


class Outcome(Struct, frozen=True):
    """
    How an answer ended, as the endpoint saw it.

    `usage` is the upstream's own report or None. `delivered_tokens` estimates the output that reached the client, for
    answers whose usage is not known. `upstream_model` is what the upstream calls the model.
    """

    ending: Ending
    usage: Usage | None
    delivered_tokens: int = 0
    upstream_model: str = ""
    images: int = 0
    audio_bytes: int = 0
    seconds: Decimal | None = None
    """The length of a recording, as the answer tells it."""
    read_texts: Callable[[], Texts] | None = None
    """Reads what was delivered, for counting it; takes milliseconds, so it is called in a thread."""


class Charge(Struct, frozen=True):
    """
    What a request cost and why: written once, when its answer ends.

    `tariff` is the price at the group's ratio, or None for a model without a price that is served for nothing.
    `started_at` is in seconds since the epoch, `duration` and `first_byte` (None: no byte came) in seconds. `principal`
    and `attempt` are None where no layer has written them. It outlives the request, so it does not hold on to its body.
    """

    quota: int
    usage: Usage
    tariff: Tariff | None
    ending: Ending
    operation: str
    model: str
    stream: bool
    status: int
    started_at: float
    duration: float
    first_byte: float | None
    request_id: str
    address: str
    principal: Principal | None
    attempt: Attempt | None
    upstream_model: str = ""


class Hold(Protocol):
    """
    Quota set aside for one request. Opened by token_quota, sized and settled by metering.

    Exactly one of `settle` and `release` ends it; whatever comes after is ignored.
    """

    async def reserve(self, quota: int) -> None:
        """
        Hold `quota` in all (not in addition). Raises `InsufficientQuota` when user or token cannot cover it; the hold
        then stays as it was. Never shrinks.
        """
        ...

    def available(self) -> int:
        """The most that `reserve` would hold in all, by what is known of user and token: exact after a refusal."""
        ...

    async def settle(self, charge: Charge) -> None:
        """Charge what the request cost, even beyond the hold, and give back the rest. Returns once it is recorded."""
        ...

    def release(self) -> None:
        """Give everything back: the request costs nothing."""
        ...


class Plan(Struct, frozen=True):
    """
    Every eligible way to serve the call, best first.

    `model` is the name under which the channels serve it. `affinity` is the conversation's number, or None.
    """

    candidates: tuple[Candidate, ...]
    model: str
    affinity: int | None = None


class Failure(Struct, frozen=True):
    """An attempt that failed, for operators: clients are not told where upstreams live."""

    channel_id: int
    key_index: int
    code: str
    reason: str


class RelayState(Struct):
    """What is known of one request by now. Layers come by it with `state_of(scope)`."""

    request_id: str = ""
    started: float = 0.0
    """`time.perf_counter()` at the door; 0.0 when nobody looked at the clock."""
    operation: Operation | UnsetType | None = UNSET
    """None: the path names no operation. Unset: nobody has looked yet."""
    mount: str = ""
    """The `root_path` under which `operation` was looked up."""
    principal: Principal | None = None
    call: Call | None = None
    hold: Hold | None = None
    plan: Plan | None = None
    attempt: Attempt | None = None
    failures: tuple[Failure, ...] = ()
    waited: float = 0.0
    """Seconds spent waiting for upstreams before the answer's first byte; the rest of the time until then is ours."""
    error: str = ""
    """The code of the failure that the client was told."""
    watched: bool = False
    outcome: Outcome | None = None
    charge: Charge | None = None


NAME = "tollway"


def state_of(scope: MutableMapping[str, Any]) -> RelayState:
    """The request's state, made by whoever asks first."""
    try:
        return scope["state"][NAME]
    except KeyError:
        state = RelayState()
        if "state" not in scope:
            scope["state"] = {}
        scope["state"][NAME] = state
        return state


class MissingState(LookupError):
    """A layer asked for a value that no layer before it has written. The message names the layer to add."""


def missing(field: str, writer: str) -> NoReturn:
    """For `state.call or missing("call", "IntakeMiddleware")`. Raises `MissingState`."""
    raise MissingState(f"{field} is not set: put {writer} before this layer")
