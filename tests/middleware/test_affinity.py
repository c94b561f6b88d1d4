"""The same conversation goes where it was served last, for a while."""

from typing import Any

import pytest
from tollway.adapters.operations import BY_PATH
from tollway.middleware.routing.affinity import Affinity, conversation

from .inner import call_of

SYSTEM = {"role": "system", "content": "You are terse."}
HELLO = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "Hi."}
MORE = {"role": "user", "content": "and now?"}


def of(*messages: Any, token_id: int = 1, model: str = "gpt-4o", **fields: Any) -> int | None:
    return conversation(call_of(model, document={"model": model, "messages": list(messages), **fields}), token_id)


def test_it_lasts_until_its_time_is_over() -> None:
    affinity = Affinity()
    affinity.remember(7, 1, 2, until=100.0)
    assert affinity.place(7, 99.9) == (1, 2)
    assert affinity.place(7, 100.0) is None
    assert affinity.place(8, 0.0) is None


def test_the_last_place_counts() -> None:
    affinity = Affinity()
    affinity.remember(7, 1, 0, until=100.0)
    affinity.remember(7, 2, 1, until=200.0)
    assert affinity.place(7, 150.0) == (2, 1)


def test_it_remembers_only_so_many_and_the_least_recently_served_go_first() -> None:
    affinity = Affinity(most=3)
    for number in (1, 2, 3, 1, 4):
        affinity.remember(number, number, 0, until=100.0)
    assert [affinity.place(number, 0.0) for number in (1, 2, 3, 4)] == [(1, 0), None, (3, 0), (4, 0)]


def test_further_turns_are_the_same_conversation() -> None:
    assert of(SYSTEM, HELLO) == of(SYSTEM, HELLO, ANSWER, MORE) is not None


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(of(SYSTEM, MORE), id="another beginning"),
        pytest.param(of(HELLO, SYSTEM), id="another order"),
        pytest.param(of(SYSTEM, HELLO, token_id=2), id="another key"),
        pytest.param(of(SYSTEM, HELLO, model="o3"), id="another model"),
        pytest.param(of(SYSTEM, HELLO, prompt_cache_key="x"), id="one with a name"),
    ],
)
def test_it_is_another_conversation_with(other: int | None) -> None:
    assert other is not None
    assert other != of(SYSTEM, HELLO)


def test_the_prompt_cache_key_names_a_conversation() -> None:
    assert of(HELLO, prompt_cache_key="x") == of(MORE, prompt_cache_key="x")
    assert of(HELLO, prompt_cache_key="x") != of(HELLO, prompt_cache_key="y")
    assert of(HELLO, prompt_cache_key="x") != of(HELLO, prompt_cache_key="x", token_id=2)


def test_messages_of_parts_are_told_apart() -> None:
    def parts(text: str) -> dict[str, Any]:
        return {"role": "user", "content": [{"type": "text", "text": text}]}

    assert of(parts("hello")) == of(parts("hello"))
    assert of(parts("hello")) != of(parts("bye"))


@pytest.mark.parametrize(
    "messages", [[{}], [None], ["hello"], [{"content": None}], [{"content": {}}], [{"content": []}], []], ids=repr
)
def test_odd_messages_are_no_defect(messages: list[Any]) -> None:
    assert of(*messages) == of(*messages)


def test_an_operation_without_messages_is_no_conversation() -> None:
    call = call_of("ada", operation=BY_PATH["/v1/embeddings"], document={"model": "ada", "input": "hello"})
    assert conversation(call, 1) is None
