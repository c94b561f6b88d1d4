"""The relay's metrics: each request counted once, with bounded labels, and everything that a scrape must show."""

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from tollway.adapters.errors import RateLimited
from tollway.config.pricing import Usage
from tollway.middleware.error_envelope import ErrorEnvelopeMiddleware
from tollway.middleware.metrics import FOLD_AT, MOST_MODELS, Sample
from tollway.middleware.prometheus import PrometheusMiddleware, RelayMetrics
from tollway.middleware.state import Attempt, Outcome, state_of

from .inner import CHAT, Inside, Message, call_of, candidate, scope_of
from .outer import Clock, Setting, Waiting, call, charge_of, raising, silent, until, whole_scope

pytestmark = pytest.mark.anyio

BARE = {"operation": "chat_completions", "dialect": "openai_chat", "model": "", "channel": "", "status": "200"}
ATTEMPT = Attempt(candidate(3), 1)


class Counted:
    """A layer around an app, with a registry and a clock of its own, and what a scrape says."""

    def __init__(self, app: Any = None, clock: Clock | None = None) -> None:
        self.metrics = RelayMetrics(CollectorRegistry())
        self.layer = PrometheusMiddleware(app or Inside(), metrics=self.metrics, clock=clock or Clock())

    async def ask(self, scope: Message | None = None) -> None:
        with suppress(Exception, asyncio.CancelledError):  # it is counted whatever happens
            await call(self.layer, scope)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def labels(self, name: str) -> list[dict[str, str]]:
        families = self.metrics.registry.collect()
        return [sample.labels for family in families for sample in family.samples if sample.name == name]

    @property
    def requests(self) -> list[dict[str, str]]:
        return self.labels("tollway_requests_total")


@pytest.mark.parametrize("count", [1, FOLD_AT - 1, FOLD_AT, FOLD_AT + 1, 3 * FOLD_AT + 7])
async def test_each_request_is_counted_once(count: int) -> None:
    counted = Counted()
    for _ in range(count):
        await counted.ask()
    for _ in range(2):  # a scrape takes nothing away
        assert counted.value("tollway_requests_total", **BARE) == count
        assert counted.value("tollway_request_duration_seconds_count", operation="chat_completions") == count


async def test_a_scrape_shows_the_requests_that_have_just_ended() -> None:
    counted = Counted()
    await counted.ask()
    assert b'tollway_requests_total{channel=""' in generate_latest(counted.metrics.registry)


@pytest.mark.parametrize(
    ("app", "status"),
    [
        pytest.param(Inside(), "200", id="an answer"),
        pytest.param(Inside(status=404), "404", id="a refusal of the upstream"),
        pytest.param(ErrorEnvelopeMiddleware(raising(RateLimited("Too fast."))), "429", id="a refusal, told inside"),
        pytest.param(ErrorEnvelopeMiddleware(raising(ZeroDivisionError())), "500", id="a defect, told inside"),
        pytest.param(silent, "499", id="the client left before an answer"),
        pytest.param(raising(asyncio.CancelledError()), "499", id="cancelled before an answer"),
        pytest.param(raising(asyncio.CancelledError(), after=2), "200", id="cancelled while it was answered"),
        pytest.param(raising(ZeroDivisionError()), "500", id="a defect that the server tells"),
    ],
)
async def test_the_status_is_the_one_that_the_client_sees(app: Any, status: str) -> None:
    counted = Counted(app)
    await counted.ask()
    assert counted.requests == [BARE | {"status": status}]


@pytest.mark.parametrize(
    ("path", "operation", "dialect"),
    [
        (CHAT.path, "chat_completions", "openai_chat"),
        ("/v1/embeddings", "embeddings", "openai"),
        ("/v1/models/gpt-4o", "models_get", "openai"),
        ("/wp-login.php", "other", ""),
    ],
)
async def test_paths_are_counted_by_operation(path: str, operation: str, dialect: str) -> None:
    counted = Counted()
    await counted.ask(scope_of(path))
    assert counted.requests == [BARE | {"operation": operation, "dialect": dialect}]


async def test_what_a_browser_asks_before_its_request_is_no_use_of_the_operation() -> None:
    counted = Counted()
    await counted.ask(scope_of(method="OPTIONS"))
    assert counted.requests == [BARE | {"operation": "other", "dialect": ""}]


async def test_paths_that_somebody_makes_up_do_not_become_labels() -> None:
    counted = Counted()
    for number in range(100):
        await counted.ask(scope_of(f"/{number}"))
    assert len(counted.requests) == 1


async def test_a_path_is_counted_alike_when_the_app_inside_mounts_its_own() -> None:
    async def chat(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    routes = [Mount("/v1", routes=[Route("/chat/completions", chat, methods=["POST"])])]
    counted = Counted(Starlette(routes=routes))
    await counted.ask(whole_scope())
    assert counted.requests == [BARE]


async def test_models_are_counted_once_a_channel_serves_them() -> None:
    counted = Counted(Setting(call=call_of("gpt-4o"), attempt=ATTEMPT))
    await counted.ask()
    assert counted.requests == [BARE | {"model": "gpt-4o", "channel": "3"}]


async def test_models_that_somebody_makes_up_do_not_become_labels() -> None:
    counted = Counted()
    for number in range(100):
        counted.layer.app = Setting(call=call_of(f"made-up-{number}"))
        await counted.ask()
    assert counted.requests == [BARE | {"model": "other"}]


async def test_models_beyond_the_bound_are_other() -> None:
    counted = Counted()
    for number in [*range(MOST_MODELS + 30), 0]:
        counted.layer.app = Setting(call=call_of(f"model-{number}"), attempt=ATTEMPT, charge=charge_of())
        await counted.ask()
    models = {labels["model"] for labels in counted.requests}
    assert models == {f"model-{number}" for number in range(MOST_MODELS)} | {"other"}
    others = BARE | {"model": "other", "channel": "3"}
    assert counted.value("tollway_requests_total", **others) == 30
    assert counted.value("tollway_requests_total", **others | {"model": "model-0"}) == 2
    assert counted.value("tollway_tokens_total", kind="output", model="other") == 30 * 5


async def test_tokens_and_quota_are_counted_by_model() -> None:
    usage = Usage(input_tokens=100, output_tokens=20, cached_tokens=60)
    counted = Counted(Setting(call=call_of("o3"), attempt=ATTEMPT, charge=charge_of(usage=usage, quota=42)))
    await counted.ask()
    await counted.ask()
    found = {
        kind: counted.value("tollway_tokens_total", kind=kind, model="o3") for kind in ("input", "output", "cached")
    }
    assert found == {"input": 200, "output": 40, "cached": 120}
    assert counted.value("tollway_quota_total", model="o3") == 84


async def test_what_was_not_charged_counts_no_tokens() -> None:
    counted = Counted(Setting(call=call_of("o3"), attempt=ATTEMPT))
    await counted.ask()
    assert counted.labels("tollway_tokens_total") == counted.labels("tollway_quota_total") == []


async def test_times_are_those_of_the_clock() -> None:
    clock = Clock()
    outcome = Outcome("completed", None)
    charge = charge_of(output_tokens=5, stream=True)
    inside = Setting(clock, 2.0, 1.0, call=call_of("o3"), attempt=ATTEMPT, outcome=outcome, charge=charge, waited=1.75)
    counted = Counted(inside, clock)
    await counted.ask()
    operation, model = {"operation": "chat_completions"}, {"model": "o3"}
    assert counted.value("tollway_request_duration_seconds_sum", **operation) == 3.0
    assert counted.value("tollway_overhead_seconds_sum", **operation) == 0.25  # of the 2 s to the first byte
    assert counted.value("tollway_time_to_first_token_seconds_sum", **model) == 2.0
    assert counted.value("tollway_inter_token_seconds_sum", **model) == 0.25  # 1 s for the 4 behind the first


async def test_an_answer_in_one_piece_has_no_time_to_its_first_token() -> None:
    clock = Clock()
    counted = Counted(Setting(clock, 2.0, 1.0, call=call_of("o3"), attempt=ATTEMPT, charge=charge_of()), clock)
    await counted.ask()
    assert counted.labels("tollway_time_to_first_token_seconds_count") == []


async def test_overhead_is_never_below_zero() -> None:
    clock = Clock()
    counted = Counted(Setting(clock, 2.0, outcome=Outcome("completed", None), waited=5.0), clock)
    await counted.ask()
    assert counted.value("tollway_overhead_seconds_sum", operation="chat_completions") == 0.0
    assert counted.value("tollway_overhead_seconds_count", operation="chat_completions") == 1


async def test_an_answer_that_never_began_has_no_overhead() -> None:
    async def cancelled(scope: Any, receive: Any, send: Any) -> None:
        state_of(scope).outcome = Outcome("cancelled", None)

    counted = Counted(cancelled)
    await counted.ask()
    assert counted.value("tollway_overhead_seconds_count", operation="chat_completions") == 0


async def test_buckets_count_everything_below_their_bound() -> None:
    clock = Clock()
    counted = Counted(clock=clock)
    for duration in (0.001, 0.005, 0.2, 400.0):
        counted.layer.app = Setting(clock, duration)
        await counted.ask()
    name, operation = "tollway_request_duration_seconds", "chat_completions"
    assert [
        counted.value(f"{name}_bucket", operation=operation, le=bound) for bound in ("0.005", "0.25", "300.0", "+Inf")
    ] == [pytest.approx(each) for each in (2, 3, 3, 4)]
    assert counted.value(f"{name}_count", operation=operation) == 4


async def test_retries_and_broken_streams_are_counted_by_channel() -> None:
    truncated = Outcome("truncated", None)
    counted = Counted(Setting(call=call_of("o3"), attempt=Attempt(candidate(3), 4), outcome=truncated))
    await counted.ask()
    counted.layer.app = Setting(call=call_of("o3"), attempt=ATTEMPT, outcome=Outcome("completed", None))
    await counted.ask()
    assert counted.value("tollway_retries_total", channel="3") == 3
    assert counted.value("tollway_truncated_streams_total", channel="3") == 1


async def test_open_requests_are_shown_while_they_are_open() -> None:
    inside = Waiting()
    counted = Counted(inside)
    tasks = [asyncio.create_task(counted.ask()) for _ in range(3)]
    await until(lambda: inside.inside == 3)
    assert counted.value("tollway_streams_open") == 3
    inside.go.set()
    await asyncio.gather(*tasks)
    assert counted.value("tollway_streams_open") == 0


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(raising(RuntimeError()), id="failed"),
        pytest.param(raising(RuntimeError(), after=2), id="failed in the middle"),
        pytest.param(raising(asyncio.CancelledError(), after=2), id="cancelled in the middle"),
        pytest.param(silent, id="left"),
    ],
)
async def test_requests_that_end_badly_do_not_stay_open(app: Any) -> None:
    counted = Counted(app)
    await counted.ask()
    assert counted.value("tollway_streams_open") == 0
    assert len(counted.requests) == 1


async def test_a_request_that_is_cancelled_from_outside_does_not_stay_open() -> None:
    inside = Waiting()
    counted = Counted(inside)
    task = asyncio.create_task(call(counted.layer))
    await until(lambda: inside.inside == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert counted.value("tollway_streams_open") == 0
    assert counted.requests == [BARE | {"status": "499"}]


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_kinds_of_scope_are_not_counted(kind: str) -> None:
    counted = Counted()
    await counted.ask(scope_of() | {"type": kind})
    assert counted.requests == []


async def test_a_scrape_is_valid_text_before_and_after_requests() -> None:
    counted = Counted(Setting(call=call_of('odd "model"\n\\'), attempt=ATTEMPT, charge=charge_of(stream=True)))
    for _ in range(2):
        families = list(text_string_to_metric_families(generate_latest(counted.metrics.registry).decode()))
        assert {family.name for family in families} >= {"tollway_requests", "tollway_streams_open"}
        assert all(family.name.startswith("tollway_") and family.documentation for family in families)
        await counted.ask()
    assert [labels["model"] for labels in counted.requests] == ['odd "model"\n\\']


def test_scrapes_beside_requests_lose_nothing() -> None:
    """`note` belongs to the event loop, a scrape may come from a thread of its own."""
    metrics = RelayMetrics(CollectorRegistry())
    sample = Sample(CHAT, "", 200, 0.1, 0.0, 0.0, None, None, None)
    over = threading.Event()

    def scrape() -> None:
        while not over.is_set():
            generate_latest(metrics.registry)

    thread = threading.Thread(target=scrape)
    thread.start()
    for _ in range(20_000):
        metrics.note(sample)
    over.set()
    thread.join()
    assert metrics.registry.get_sample_value("tollway_requests_total", BARE) == 20_000
