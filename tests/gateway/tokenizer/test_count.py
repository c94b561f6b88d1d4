"""Counts are exact, quick whatever comes, and made beside the event loop."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken import Encoding
from tollway.adapters.usage.prompt_texts import Counted, Texts
from tollway.adapters.usage.token_estimates import estimate_text
from tollway.gateway.tokenizer import TokenCounter
from tollway.gateway.tokenizer.count import (
    LONGEST_PIECE,
    MOST_CHARACTERS,
    MOST_WAITING,
    count_piece,
    count_texts,
    pieces,
)


def counted(texts: Sequence[str], model: str) -> int:
    async def count() -> int:
        counter = TokenCounter()
        try:
            return (await counter.count(lambda: Texts(list(texts)), model)).tokens
        finally:
            counter.close()

    return asyncio.run(count())


@pytest.mark.parametrize(
    ("text", "o200k_tokens", "cl100k_tokens"),
    [
        pytest.param("", 0, 0, id="nothing"),
        pytest.param("Hello, world!", 4, 4, id="a greeting"),
        pytest.param("The quick brown fox jumps over the lazy dog.", 10, 10, id="English"),
        pytest.param("敏捷的棕色狐狸跳过了懒狗。", 14, 25, id="Chinese"),
        pytest.param("素早い茶色の狐がのろまな犬を飛び越える", 18, 28, id="Japanese"),
        pytest.param("Быстрая коричневая лиса прыгает через ленивую собаку", 19, 27, id="Russian"),
        pytest.param("الثعلب البني السريع يقفز فوق الكلب الكسول", 15, 29, id="Arabic"),
        pytest.param("तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है", 19, 47, id="Hindi"),
        pytest.param("Con cáo nâu nhanh nhẹn nhảy qua con chó lười", 14, 22, id="Vietnamese"),
        pytest.param("for (let i = 0; i < items.length; i++) { total += items[i]; }", 22, 22, id="code"),
        pytest.param("😀👩‍👩‍👧🇻🇳", 13, 21, id="emoji"),
        pytest.param("3.14159265358979", 7, 7, id="digits"),
        pytest.param("<|endoftext|><|im_start|>", 12, 12, id="what looks like special tokens is text"),
    ],
)
def test_counts_are_the_encodings_own(text: str, o200k_tokens: int, cl100k_tokens: int) -> None:
    """The numbers are those of another build of the tokenizer, with ranks of its own (npm's `tiktoken` 1.0.22)."""
    assert counted([text], "gpt-4o") == o200k_tokens
    assert counted([text], "gpt-4") == cl100k_tokens


@pytest.mark.parametrize("name", ["o200k", "cl100k"])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("The quick brown fox jumps over the lazy dog. " * 8_000, id="English"),
        pytest.param("Быстрая коричневая лиса, прыгает!\n\n" * 8_000, id="Russian"),
        pytest.param("if x == 1:\n        return  'a'\n\n\n    # don't\n" * 6_000, id="code"),
    ],
)
def test_a_text_in_pieces_counts_as_the_whole(name: str, text: str, request: pytest.FixtureRequest) -> None:
    encoding: Encoding = request.getfixturevalue(name)
    assert len(text) > 3 * LONGEST_PIECE
    assert count_texts(encoding, [text]) == len(encoding.encode_ordinary(text))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.text("ab Zé字1.'!\n\t\u00a0\u0301", min_size=1, max_size=60), st.integers(0, 3))
def test_pieces_are_the_text_and_never_too_long(text: str, more: int) -> None:
    text *= LONGEST_PIECE // len(text) * more + 1
    cut = list(pieces(text))
    assert "".join(cut) == text
    assert max(map(len, cut)) <= LONGEST_PIECE
    assert all(cut)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4", "claude-sonnet-4-5"])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(" " * 1_000_000, id="a million blanks"),
        pytest.param(" " * 3_000_000 + "x", id="three million blanks and a letter"),
        pytest.param("\t" * 2_000_000, id="tabs"),
        pytest.param("\u3000" * 2_000_000, id="ideographic blanks"),
        pytest.param("\n" * 1_000_000, id="line breaks"),
        pytest.param(" \n" * 500_000, id="blanks and line breaks"),
        pytest.param("😀" * 1_000_000, id="emoji"),
        pytest.param("a" * 1_000_000, id="one long word"),
        pytest.param("A" * 1_000_000, id="one long word in capitals"),
        pytest.param("字" * 1_000_000, id="one character"),
        pytest.param("\u0301" * 1_000_000, id="accents without letters"),
        pytest.param("!" * 1_000_000, id="exclamation marks"),
        pytest.param("7" * 1_000_000, id="digits"),
        pytest.param("\0" * 1_000_000, id="zeros"),
        pytest.param("\ud800" * 300_000, id="surrogates that stand alone"),
    ],
)
def test_no_text_takes_long_or_breaks_the_tokenizer(
    model: str, text: str, o200k: Encoding, cl100k: Encoding, capfd: pytest.CaptureFixture[str]
) -> None:
    began = time.perf_counter()
    tokens = counted([text], model)
    assert time.perf_counter() - began < 3
    assert 0 < tokens <= len(text.encode("utf-8", "surrogatepass"))
    assert "panicked" not in capfd.readouterr().err


def test_beyond_the_cap_the_rest_counts_in_proportion(o200k: Encoding) -> None:
    sentence = "The quick brown fox jumps over the lazy dog. "
    text = sentence * (10 * MOST_CHARACTERS // len(sentence))
    assert counted([text], "gpt-4o") == pytest.approx(len(text) / len(sentence) * 10, rel=0.001)


def test_a_dense_tail_is_not_hidden_behind_an_empty_head(o200k: Encoding) -> None:
    head, tail = " " * (2 * MOST_CHARACTERS), "7" * (2 * MOST_CHARACTERS)
    assert counted([head, tail], "gpt-4o") == pytest.approx(len(tail) / 3, rel=0.1)


def test_many_short_texts_are_as_quick_as_a_long_one(o200k: Encoding) -> None:
    texts = ["word"] * 1_000_000
    began = time.perf_counter()
    assert counted(texts, "gpt-4o") == 1_000_000
    assert time.perf_counter() - began < 3


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.text(max_size=50), max_size=5))
def test_a_sum_of_texts_is_the_sum_of_their_counts(texts: list[str]) -> None:
    one_by_one = [counted([text], "gpt-4o") for text in texts]
    assert counted(texts, "gpt-4o") == sum(one_by_one)
    assert all(tokens >= 0 for tokens in one_by_one)


def test_vendors_without_a_tokenizer_are_estimated_by_characters() -> None:
    assert counted(["The quick brown fox"], "claude-sonnet-4-5") == estimate_text("The quick brown fox")


class Panic(BaseException):
    """As the tokenizer's own: not an `Exception`."""


class Broken:
    def encode_ordinary(self, text: str) -> list[int]:
        raise Panic


def test_a_panic_inside_the_tokenizer_costs_an_estimate() -> None:
    assert count_piece(Broken(), "seven letters") == estimate_text("seven letters")


def test_ranks_that_cannot_be_read_cost_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(name: str) -> Encoding:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("tollway.gateway.tokenizer.count.load_encoding", no_file)
    assert counted(["seven letters"], "gpt-4o") == estimate_text("seven letters")


def test_the_event_loop_goes_on_while_tokens_are_counted(o200k: Encoding) -> None:
    """Eight counts of the longest kind: the loop wakes up all the time, and never a quarter of a second late."""

    async def scene() -> tuple[float, int, list[Counted]]:
        counter = TokenCounter()
        longest, ticks = 0.0, 0

        async def tick() -> None:
            nonlocal longest, ticks
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0.002)
                longest, ticks = max(longest, time.perf_counter() - began), ticks + 1

        ticker = asyncio.create_task(tick())
        await asyncio.sleep(0)
        text = " " * MOST_CHARACTERS
        results = await asyncio.gather(*(counter.count(lambda: Texts([text]), "gpt-4o") for _ in range(8)))
        ticker.cancel()
        counter.close()
        return longest, ticks, results

    longest, ticks, results = asyncio.run(scene())
    assert len({result.tokens for result in results}) == 1, "the same text counts the same"
    assert longest < 0.25
    assert ticks >= 20


def test_the_queue_is_bounded_and_who_finds_it_full_is_estimated(o200k: Encoding) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 1000
    exact, estimate = count_texts(o200k, [text]), estimate_text(text)
    assert exact != estimate

    async def scene() -> list[Counted]:
        counter = TokenCounter()
        waiting = [counter.count(lambda: Texts([text]), "gpt-4o") for _ in range(3 * MOST_WAITING)]
        results = await asyncio.gather(*waiting)
        again = await counter.count(lambda: Texts([text]), "gpt-4o")
        counter.close()
        return [*results, again]

    *results, again = (result.tokens for result in asyncio.run(scene()))
    assert set(results) == {exact, estimate}
    assert results.count(exact) >= MOST_WAITING
    assert again == exact


def test_a_count_that_nobody_waits_for_leaves_the_queue() -> None:
    async def scene() -> list[Counted]:
        counter = TokenCounter()

        def slow() -> Texts:
            time.sleep(0.05)
            return Texts()

        first = asyncio.create_task(counter.count(slow, "gpt-4o"))
        given_up = [asyncio.create_task(counter.count(Texts, "gpt-4o")) for _ in range(MOST_WAITING - 1)]
        await asyncio.sleep(0.01)
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        rest = [counter.count(lambda: Texts(["Hello, world!"]), "gpt-4o") for _ in range(MOST_WAITING - 1)]
        results = await asyncio.gather(*rest)
        await first
        counter.close()
        return results

    assert {result.tokens for result in asyncio.run(scene())} == {4}


def test_what_waits_is_counted_when_the_counter_is_closed() -> None:
    async def scene() -> Counted:
        counter = TokenCounter()
        waiting = asyncio.create_task(counter.count(lambda: Texts(["Hello, world!"], fixed=3), "gpt-4o"))
        await asyncio.sleep(0)
        counter.close()
        return await waiting

    assert asyncio.run(scene()) == Counted(7)
