"""Prices that are taken over from files, and given away in them; and what a cached token costs."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tollway.config.options import Options
from tollway.config.price_book import PriceBook
from tollway.config.pricing import Price
from tollway.gateway.cli.arguments import Parser
from tollway.gateway.cli.channel_flags import add_flags, edits
from tollway.gateway.cli.failures import Usage
from tollway.gateway.data_dir import DataDir
from tollway.gateway.snapshot import Snapshot
from tollway.gateway.store import changes, prices

D = Decimal
Done = Callable[..., Any]
InStore = Callable[..., Any]
Tollway = Callable[..., Any]
RATIOS = {
    "ModelRatio": {"gpt-4o": 1.25, "deepseek-chat": 0.135, "mid*dle": 1},
    "ModelPrice": {"painter": 0.04},
    "CompletionRatio": {"gpt-4o": 4},
    "CacheRatio": {"gpt-4o": 0.5},
    "GroupRatio": {"default": 1, "vip": 0.8},
}
ROWS = """
[models."own"]
also = ["own-*"]
input = 1.25
output = 10
source = "a contract"
checked = 2026-11-20
tiers = [{ above = 200_000, input = 2.5, output = 15 }]
tools = { web_search = 10 }
dated = [{ until = 2001-01-01, input = 5, output = 5 }]
"""


def own_prices(in_store: InStore) -> PriceBook:
    rows = in_store(lambda opened: prices.list_all(opened.store))
    return PriceBook({model: price for row in rows for model, price in PriceBook.load(row.price).prices.items()})


def test_ratios_are_taken_over(done: Done, tollway: Tollway, in_store: InStore) -> None:
    ended = tollway("price", "import", "-", "--json", stdin=json.dumps(RATIOS))
    assert ended.json == {
        "imported": ["deepseek-chat", "gpt-4o", "painter"],
        "options": ["GroupRatio"],
        "as_shipped": [],
        "left_out": ["mid*dle: a * stands before its end"],
    }
    assert ended.err == ""
    book = own_prices(in_store)
    assert (book.prices["gpt-4o"].cached_input, book.prices["painter"].per_call) == (D("1.25"), D("0.04"))
    groups = {each["name"]: each["value"] for each in done("option", "list")}["GroupRatio"]
    assert json.loads(groups) == {"default": 1, "vip": 0.8}


def test_what_is_left_out_is_warned_of(tollway: Tollway) -> None:
    ended = tollway("price", "import", "-", stdin=json.dumps(RATIOS))
    assert ended.err == "tollway: warning: left out: mid*dle: a * stands before its end\n"
    lonely = json.dumps({"CacheRatio": {f"m{i}": 0.5 for i in range(300)}})
    lines = tollway("price", "import", "-", stdin=lonely).err.splitlines()
    assert (len(lines), lines[-1]) == (11, "tollway: warning: left out: 290 more; --json names all")


def test_servers_take_a_thousand_prices_over_at_one_look(tollway: Tollway, in_store: InStore) -> None:
    many = json.dumps({"ModelRatio": {f"m{i}": 1 + i for i in range(1100)}})
    assert tollway("price", "import", "-", stdin=many).status == 0

    async def after_one_look(opened: DataDir) -> Price | None:
        watching = Snapshot(opened.store, opened.vault, defaults=Options())
        await watching.poll()
        assert await changes.since(opened.store, 0, limit=2) == await changes.since(opened.store, 0)
        return watching.prices.price_for("m1099", "m1099")

    assert in_store(after_one_look).input == D(2200)


def test_what_was_taken_over_is_given_away_again(tollway: Tollway, tmp_path: Path) -> None:
    file = tmp_path / "ratios.json"
    file.write_text(json.dumps(RATIOS))
    assert tollway("price", "import", file).status == 0
    ended = tollway("price", "export", "--format", "ratios", "--own")
    assert (ended.status, ended.err) == (0, "")
    kept = {name: {m: r for m, r in entries.items() if "*" not in m} for name, entries in RATIOS.items()}
    del kept["CompletionRatio"]  # what New API takes without an entry
    assert ended.json == kept


def test_rows_are_taken_over_with_everything_that_they_say(done: Done, tollway: Tollway, in_store: InStore) -> None:
    assert done("price", "import", "-", stdin=ROWS)["imported"] == ["own", "own-*"]
    expected = PriceBook.load(ROWS).prices
    book = own_prices(in_store)
    assert {name: price.version for name, price in book.prices.items()} == {
        name: price.version for name, price in expected.items()
    }
    exported = PriceBook.load(tollway("price", "export", "--own").out)
    assert exported == book
    (row,) = (row for model, row in done("price", "export", "--own")["models"].items() if model == "own")
    assert row["tiers"] == [{"above": 200_000, "input": 2.5, "output": 15}]
    assert row["checked"] == "2026-11-20"
    everything = PriceBook.load(tollway("price", "export").out)
    assert everything.prices.keys() == {*PriceBook.builtin().prices, "own", "own-*"}


def test_a_price_is_shown_with_its_tiers_and_tools(done: Done, tollway: Tollway) -> None:
    done("price", "import", "-", stdin=ROWS)
    shown = done("price", "show", "own-1")
    assert (shown["tools"], shown["tiers"]) == (
        {"web_search": "10"},
        [{"above": 200_000, "input": "2.5", "output": "15"}],
    )
    text = tollway("price", "show", "own").out
    for line in ("10  per 1000 calls of web_search", "When more than 200000 tokens go in:", "Until 2001-01-01"):
        assert line in text
    assert "above 200000 others" in tollway("price", "list").out


def test_yuan_are_shown_beside_the_dollars(done: Done, tollway: Tollway) -> None:
    name, price = next((name, each) for name, each in PriceBook.builtin().prices.items() if each.currency == "CNY")
    shown = done("price", "show", name)
    assert shown["currency"] == "CNY"
    assert D(shown["original"]["input"]) * D(shown["usd_per_unit"]) == price.input
    assert f"({shown['original']['input']} CNY)" in tollway("price", "show", name).out


def test_one_bad_row_and_nothing_is_imported(tollway: Tollway, in_store: InStore, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(ROWS + '\n[models.m]\ninput = -1\noutput = 1\nsource = "x"\nchecked = 2026-11-20\n')
    ended = tollway("price", "import", file)
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "price of 'm': input: must not be negative" in ended.err
    assert "nothing was imported" in ended.err
    assert own_prices(in_store).prices == {}


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        pytest.param(b"\xff\xfe", 2, "UTF-8", id="no text"),
        pytest.param(b"{", 1, "not JSON", id="no JSON"),
        pytest.param(b"= 3", 1, "not TOML", id="no TOML"),
        pytest.param(b'{"ModelRatio": {"a\\nb": 1}}', 1, "printable", id="a name of two lines"),
        pytest.param(b'{"ModelRatio": {"%s": 1}}' % (b"m" * 256), 1, "255", id="a name too long"),
        pytest.param(None, 1, "cannot be read", id="no file"),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_sentence(
    tollway: Tollway, tmp_path: Path, content: bytes | None, status: int, said: str
) -> None:
    file = tmp_path / "prices"
    if content is not None:
        file.write_bytes(content)
    ended = tollway("price", "import", file)
    assert (ended.status, ended.err.count("\n"), ended.out) == (status, 1, "")
    assert said in ended.err


def test_what_ratios_cannot_say_is_told_on_standard_error(tollway: Tollway) -> None:
    ended = tollway("price", "export", "--format", "ratios")
    assert ended.status == 0
    assert ended.json["ModelRatio"]["gpt-4o"] == 1.25
    first, *kinds = ended.err.splitlines()
    assert "New API's ratios do not say all of " in first
    assert len(kinds) <= 10
    assert any("tiers by the prompt's length: " in line and " models, such as " in line for line in kinds)
    every = tollway("price", "export", "--format", "ratios", "--json")
    assert every.json == ended.json
    assert "tollway: warning: not told of gemini-2.5-pro: tiers by the prompt's length, fees for tools\n" in every.err


def test_of_a_few_models_each_is_named(tollway: Tollway) -> None:
    assert tollway("price", "import", "-", stdin=ROWS).status == 0
    ended = tollway("price", "export", "--format", "ratios", "--own")
    assert ended.err == (
        "tollway: warning: not told of own: tiers by the prompt's length, dates, fees for tools\n"
        "tollway: warning: not told of own-*: a pattern, left out\n"
    )


def test_a_price_is_set_with_tools_and_a_cache_ratio(done: Done, in_store: InStore) -> None:
    done("price", "set", "m", "--input", 2, "--output", 0, "--prompt-cache-ratio", "0.25", "--tool", "web_search=10")
    price = own_prices(in_store).prices["m"]
    assert (price.prompt_cache_ratio, price.tools, price.output) == (D("0.25"), {"web_search": 10}, 0)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        pytest.param(("--input", 1, "--tool", "telepathy=1"), "--tool", id="a tool that is not one"),
        pytest.param(("--input", 1, "--tool", "web_search=-1"), "--tool", id="a tool that pays"),
        pytest.param(("--input", 1, "--prompt-cache-ratio", 2), "--prompt-cache-ratio", id="a ratio above 1"),
        pytest.param(("--input", 1, "--prompt-cache-ratio", ""), "--prompt-cache-ratio", id="no ratio"),
        pytest.param(
            ("--input", 1, "--output", 1, "--prompt-cache-ratio", 1, "--cached-input", 1),
            "--prompt-cache-ratio",
            id="two prices",
        ),
    ],
)
def test_a_price_that_cannot_be_set_names_its_flag(tollway: Tollway, argv: tuple[Any, ...], said: str) -> None:
    ended = tollway("price", "set", "m", *argv)
    assert (ended.status, f"argument {said}: " in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        (("--input", 3, "--cached-input", 4), "--output"),
        (("--output", 5), "--input"),
        (("--cached-input", 1), "--input"),
    ],
)
def test_half_a_price_does_not_give_the_other_half_away(tollway: Tollway, flags: tuple[Any, ...], missing: str) -> None:
    ended = tollway("price", "set", "m", *flags)
    assert ended.status == 2
    assert f"argument {missing}: price of 'm': {missing[2:]}: is missing; write 0 for what is free" in ended.err


def test_a_price_of_ones_own_keeps_what_the_flags_do_not_name(done: Done, in_store: InStore) -> None:
    done(
        "price",
        "set",
        "m",
        "--input",
        3,
        "--output",
        5,
        "--cached-input",
        1,
        "--tool",
        "web_search=10",
        "--source",
        "s",
    )
    done("price", "set", "m", "--output", 6, "--prompt-cache-ratio", "0.5", "--per-image", 1)
    price = own_prices(in_store).prices["m"]
    assert (price.input, price.output, price.cached_input, price.prompt_cache_ratio) == (3, 6, None, D("0.5"))
    assert (price.tools, price.per_image, price.source) == ({"web_search": 10}, {"default": 1}, "s")
    done("price", "set", "m", "--cached-input", 2)
    assert (own_prices(in_store).prices["m"].cached_input, own_prices(in_store).prices["m"].output) == (2, 6)


def test_a_price_with_tiers_is_not_changed_by_flags(tollway: Tollway, done: Done, tmp_path: Path) -> None:
    row = 'input = 1\noutput = 2\nsource = "s"\nchecked = 2026-01-01\ntiers = [{ above = 9, input = 2 }]\n'
    (tmp_path / "p.toml").write_text(f'[models."m"]\n{row}')
    done("price", "import", tmp_path / "p.toml")
    ended = tollway("price", "set", "m", "--input", 5)
    assert (ended.status, "has tiers or dates" in ended.err) == (2, True)


def test_cached_input_dearer_than_input_is_wondered_at(tollway: Tollway) -> None:
    assert (
        "warning: input read from a cache costs more"
        in tollway("price", "set", "m", "--input", 3, "--output", 5, "--cached-input", 4).err
    )


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("foo", "foo no longer has a price and is not served."),
        ("foo-*", "foo-* is no longer a price: names that begin so and have none of their own are not served."),
        ("gpt-4o", "gpt-4o has its shipped price."),
        ("bar-1", "bar-1 has the price of bar-*."),
    ],
)
def test_whoever_takes_a_price_away_is_told_what_counts_now(
    tollway: Tollway, done: Done, model: str, said: str
) -> None:
    done("price", "set", "bar-*", "--input", 1, "--output", 1)
    done("price", "set", model, "--input", 1, "--output", 1)
    assert tollway("price", "unset", model).out == f"{said}\n"


def test_what_is_as_shipped_is_not_made_ones_own(tollway: Tollway, done: Done, tmp_path: Path) -> None:
    (tmp_path / "all.toml").write_text(tollway("price", "export").out)
    done("price", "set", "gpt-4o", "--input", 1, "--output", 1)
    assert "1 price is set; " in tollway("price", "import", tmp_path / "all.toml").out
    assert [each["model"] for each in done("price", "list")] == ["gpt-4o"]


def test_a_file_that_is_no_toml_is_named(tollway: Tollway, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("what is this")
    assert f"{tmp_path}/p.toml: not TOML: " in tollway("price", "import", tmp_path / "p.toml").err


# --- a channel's ratio


@pytest.mark.parametrize(("text", "ratio"), [("0.5", D("0.5")), ("0", D(0)), ("1", D(1)), ("", None)])
def test_a_channel_has_a_cache_ratio(text: str, ratio: Decimal | None) -> None:
    parser = Parser()
    add_flags(parser, create=False)
    assert edits(parser.parse_args(["--prompt-cache-ratio", text])) == {"prompt_cache_ratio": ratio}
    assert "prompt_cache_ratio" not in edits(parser.parse_args([]))


@pytest.mark.parametrize("text", ["1.01", "-0.1", "NaN", "half", "0.0000000000000000001"])
def test_a_channels_cache_ratio_is_0_to_1(text: str) -> None:
    parser = Parser()
    add_flags(parser, create=False)
    with pytest.raises(Usage, match="0 to 1"):
        parser.parse_args(["--prompt-cache-ratio", text])


@pytest.mark.parametrize("text", ["1.01", "-1", "half", "NaN"])
def test_the_systems_cache_ratio_is_0_to_1(tollway: Tollway, text: str) -> None:
    ended = tollway("option", "set", "prompt_cache_ratio", "--", text)
    assert (ended.status, "prompt_cache_ratio must be a number from 0 to 1" in ended.err) == (2, True)


def test_the_systems_cache_ratio_is_set(done: Done) -> None:
    done("option", "set", "prompt_cache_ratio", "0.5")
    found = {each["name"]: each["value"] for each in done("option", "list")}
    assert found["prompt_cache_ratio"] == "0.5"


@pytest.mark.parametrize(
    ("model", "flags", "lost"),
    [
        pytest.param("gpt-4o-mini", (), ("--cached-input 0.075", "--tool web_search=10"), id="a cache and tools"),
        pytest.param("gemini-2.5-pro", (), ("other prices above 200000 tokens",), id="longer prompts"),
        pytest.param("dall-e-3", (), ("--per-image 1024x1024/hd=",), id="images"),
        pytest.param("my-model", (), (), id="no shipped price"),
        pytest.param("whisper-1", ("--per-minute", "0.01"), (), id="all that it had"),
    ],
)
def test_what_a_shipped_price_had_besides_is_warned_of(
    model: str, flags: tuple[str, ...], lost: tuple[str, ...], done: Done
) -> None:
    """It is charged no longer, or as other input: nobody who types two figures would expect that."""
    first = done("price", "set", model, "--input", 1, "--output", 2, *flags)
    again = done("price", "set", model, "--input", 3)
    (warning,) = first["warnings"] or [""]
    assert all(each in warning for each in lost)
    assert bool(warning) == bool(lost)
    assert again["warnings"] == [], "the second time it is no surprise"
