"""A Secret reaches nobody by accident: not a log, not a response, not a file."""

import copy
import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass

import orjson
import pytest
from tollway.config.secret import Secret

TEXT = "sk-live-0123456789"


@dataclass(frozen=True)
class Account:
    name: str
    key: Secret


SECRET = Secret(TEXT)
ACCOUNT = Account("main", SECRET)


def test_reveal_is_the_way_to_the_text() -> None:
    assert SECRET.reveal() == TEXT


SHOWN: dict[str, Callable[[], str]] = {
    "str": lambda: str(SECRET),
    "repr": lambda: repr(SECRET),
    "an f-string": lambda: f"{SECRET}",
    "an f-string with !r": lambda: f"{SECRET!r}",
    "an f-string with !a": lambda: f"{SECRET!a}",
    "an f-string that pads": lambda: f"{SECRET:>40}",
    "an f-string that cuts": lambda: f"{SECRET:.3}",
    "format": lambda: "{} {key}".format(SECRET, key=SECRET),  # noqa: UP032 - this way of formatting is the subject
    "percent": lambda: "%s %r" % (SECRET, SECRET),  # noqa: UP031 - this way of formatting is the subject
    "a list": lambda: str([SECRET]),
    "a mapping": lambda: str({"key": SECRET}),
    "a dataclass": lambda: repr(ACCOUNT),
    "an exception": lambda: repr(ValueError("bad key", SECRET)),
    "json with default=str": lambda: json.dumps({"key": SECRET}, default=str),
    "json with default=repr": lambda: json.dumps({"key": SECRET}, default=repr),
    "orjson with default=str": lambda: orjson.dumps({"key": SECRET}, default=str).decode(),
    "an object's listed attributes": lambda: repr([name for name in dir(SECRET) if TEXT in name]),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN.keys())
def test_it_is_shown_masked(show: Callable[[], str]) -> None:
    shown = show()
    assert TEXT not in shown
    assert "0123" not in shown


REFUSED: dict[str, Callable[[], object]] = {
    "json": lambda: json.dumps({"key": SECRET}),
    "json of its attributes": lambda: json.dumps(SECRET, default=vars),
    "orjson": lambda: orjson.dumps({"key": SECRET}),
    "orjson of a dataclass": lambda: orjson.dumps(ACCOUNT),
    "pickle": lambda: pickle.dumps(SECRET),
    "pickle of a dataclass": lambda: pickle.dumps(ACCOUNT),
    "the oldest pickle": lambda: pickle.dumps(SECRET, protocol=0),
    "a deep copy": lambda: copy.deepcopy(SECRET),
    "asdict of a dataclass": lambda: asdict(ACCOUNT),
}


@pytest.mark.parametrize("write", REFUSED.values(), ids=REFUSED.keys())
def test_it_is_not_serialised(write: Callable[[], object]) -> None:
    with pytest.raises(TypeError) as refused:
        write()
    assert TEXT not in str(refused.value)


def test_a_log_line_has_the_mask(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("key %s of %r", SECRET, ACCOUNT)
        logging.getLogger("test").info(SECRET)
    assert TEXT not in caplog.text
    assert "********" in caplog.text


def test_the_mask_does_not_tell_the_length() -> None:
    assert str(Secret("a")) == str(Secret("a" * 200))


def test_equal_texts_are_equal_secrets_and_no_secret_is_a_string() -> None:
    assert Secret(TEXT) == SECRET
    assert hash(Secret(TEXT)) == hash(SECRET)
    assert Secret("other") != SECRET
    assert SECRET != TEXT
    assert len({Secret(TEXT), SECRET, Secret("other")}) == 2


def test_an_empty_secret_is_false() -> None:
    assert not Secret("")
    assert SECRET


def test_it_has_no_attributes_to_list() -> None:
    with pytest.raises(TypeError):
        vars(SECRET)
