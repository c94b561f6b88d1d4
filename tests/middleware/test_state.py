"""What travels with a request: one state, made by whoever asks first; and the sentence that names a missing layer."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from tollway.config.pricing import Usage
from tollway.middleware.state import Attempt, MissingState, Outcome, Plan, RelayState, missing, state_of

from .inner import ALICE, Message, candidate
from .outer import charge_of


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param({}, id="a server without lifespan state"),
        pytest.param({"state": {}}, id="an empty state"),
        pytest.param({"state": {"theirs": 1}}, id="a state of the app around it"),
    ],
)
def test_the_state_is_made_by_whoever_asks_first_and_kept(scope: Message) -> None:
    theirs = dict(scope.get("state", {}))
    state = state_of(scope)
    state.principal = ALICE
    assert state_of(scope) is state
    assert scope["state"] == theirs | {"tollway": state}


def test_the_state_is_shared_by_scopes_that_were_copied_on_the_way() -> None:
    scope: Message = {"state": {}}
    mounted = dict(scope)
    state_of(mounted).request_id = "req-7"
    assert state_of(scope).request_id == "req-7"


def test_requests_of_one_server_share_nothing() -> None:
    lifespan: Message = {"theirs": 1}
    one, two = {"state": lifespan.copy()}, {"state": lifespan.copy()}
    state_of(one).principal = ALICE
    assert state_of(two).principal is None
    assert lifespan == {"theirs": 1}


def test_a_new_state_knows_nothing() -> None:
    state = RelayState()
    known = {name for name in state.__struct_fields__ if name != "operation" and getattr(state, name)}
    assert known == set()


@pytest.mark.parametrize(
    "value",
    [
        ALICE,
        candidate(),
        Attempt(candidate(), 1),
        Outcome("completed", Usage()),
        charge_of(),
        Plan((candidate(),), "gpt-4o"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_values_in_it_cannot_be_changed(value: Any) -> None:
    fields = getattr(value, "__struct_fields__", None) or type(value).__dataclass_fields__
    for name in fields:
        with pytest.raises((AttributeError, FrozenInstanceError)):
            setattr(value, name, None)


def test_a_missing_value_names_the_layer_to_put_before() -> None:
    with pytest.raises(MissingState, match=r"^call is not set: put IntakeMiddleware before this layer$"):
        missing("call", "IntakeMiddleware")


def test_missing_state_is_a_lookup_error() -> None:
    assert issubclass(MissingState, LookupError)
