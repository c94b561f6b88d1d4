"""What a model's name says beyond the model."""

import pytest
from tollway.middleware.model_suffix import ModelSuffixMiddleware
from tollway.middleware.state import state_of

from .inner import Client, Inside, call_of, scope_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("model", "base_model", "effort"),
    [
        ("o3-mini-high", "o3-mini", "high"),
        ("o3-mini-low", "o3-mini", "low"),
        ("o1-medium", "o1", "medium"),
        ("o4-mini-none", "o4-mini", "none"),
        ("gpt-5-minimal", "gpt-5", "minimal"),
        ("gpt-5-mini-high", "gpt-5-mini", "high"),
        ("gpt-5.1-codex-xhigh", "gpt-5.1-codex", "xhigh"),
        ("o3-mini", "o3-mini", None),
        ("o3", "o3", None),
        ("gpt-4o", "gpt-4o", None),
        ("gpt-4o-high", "gpt-4o-high", None),
        ("claude-opus-high", "claude-opus-high", None),
        ("openai/o3-high", "openai/o3-high", None),
        ("O3-high", "O3-high", None),
        ("o3-highest", "o3-highest", None),
        ("o3-mini-high-high", "o3-mini-high", "high"),
        ("-high", "-high", None),
    ],
)
async def test_the_suffix_becomes_the_effort(model: str, base_model: str, effort: str | None) -> None:
    scope, client, inside = scope_of(), Client(), Inside()
    before = call_of(model, output_limit=7, body=b"{}")
    state_of(scope).call = before
    await ModelSuffixMiddleware(inside)(scope, client.receive, client.send)
    call = state_of(scope).call
    assert (call.model, call.base_model, call.effort) == (model, base_model, effort)
    assert (call.output_limit, call.body, call.document) == (7, b"{}", before.document)
    assert inside.calls == 1


@pytest.mark.parametrize("scope", [scope_of("/health"), {"type": "lifespan"}], ids=["another path", "lifespan"])
async def test_without_a_call_it_passes(scope: dict[str, object]) -> None:
    client, inside = Client(), Inside()
    await ModelSuffixMiddleware(inside)(scope, client.receive, client.send)
    assert inside.calls == 1
