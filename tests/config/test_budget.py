"""Periods of the calendar, soft limits, and the day on which something runs out."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollway.config.budget import DAY_MS, Period, Span, runs_out, soft_limit, span_of


def ms(when: datetime) -> int:
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def at(text: str) -> int:
    return ms(datetime.fromisoformat(text).replace(tzinfo=UTC))


moments = st.integers(at("0001-03-01"), at("9990-01-01"))


@pytest.mark.parametrize(
    ("period", "moment", "begin", "end"),
    [
        (Period.DAILY, "2026-03-01T00:00", "2026-03-01", "2026-03-02"),
        (Period.DAILY, "2026-03-01T23:59:59.999", "2026-03-01", "2026-03-02"),
        (Period.DAILY, "2028-02-28T12:00", "2028-02-28", "2028-02-29"),
        (Period.DAILY, "2016-12-31T23:59:59.999", "2016-12-31", "2017-01-01"),
        (Period.DAILY, "1969-12-31T23:59", "1969-12-31", "1970-01-01"),
        (Period.WEEKLY, "2026-11-23T00:00", "2026-11-23", "2026-11-30"),
        (Period.WEEKLY, "2026-11-22T23:59:59.999", "2026-11-16", "2026-11-23"),
        (Period.WEEKLY, "1970-01-01T00:00", "1969-12-29", "1970-01-05"),
        (Period.WEEKLY, "2027-01-01T08:00", "2026-12-28", "2027-01-04"),
        (Period.MONTHLY, "2026-12-31T23:59:59.999", "2026-12-01", "2027-01-01"),
        (Period.MONTHLY, "2027-01-01T00:00", "2027-01-01", "2027-02-01"),
        (Period.MONTHLY, "2028-02-29T12:00", "2028-02-01", "2028-03-01"),
        (Period.MONTHLY, "2100-02-28T12:00", "2100-02-01", "2100-03-01"),
    ],
)
def test_the_period_of_a_moment(period: Period, moment: str, begin: str, end: str) -> None:
    assert span_of(period, at(moment)) == Span(at(begin), at(end))


@given(st.sampled_from(Period), moments)
def test_periods_follow_each_other_without_gap_or_overlap(period: Period, now: int) -> None:
    span = span_of(period, now)
    assert span.starts_at <= now < span.ends_at
    assert span_of(period, span.starts_at) == span
    assert span_of(period, span.ends_at - 1) == span
    assert span_of(period, span.ends_at).starts_at == span.ends_at
    assert span_of(period, span.starts_at - 1).ends_at == span.starts_at


@given(moments)
def test_periods_begin_where_calendars_say(now: int) -> None:
    def begins(period: Period) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=span_of(period, now).starts_at)

    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=now)
    assert begins(Period.DAILY) == when.replace(hour=0, minute=0, second=0, microsecond=0)
    assert begins(Period.WEEKLY).date() == date.fromisocalendar(*when.isocalendar()[:2], 1)
    assert begins(Period.MONTHLY).date() == when.date().replace(day=1)


@pytest.mark.parametrize(
    ("amount", "percent", "expected"),
    [(1000, 80, 800), (1, 1, 1), (999, 50, 500), (10, 100, 10), (10, 0, None), (10**15, 99, 99 * 10**13)],
)
def test_the_soft_limit_is_reached_when_the_share_is(amount: int, percent: int, expected: int | None) -> None:
    assert soft_limit(amount, percent) == expected


NOON = at("2026-11-21T12:00")


@pytest.mark.parametrize(
    ("left", "used", "expected"),
    [
        (1000, 0, None),
        (0, 0, None),
        (0, 700, date(2026, 11, 21)),
        (-50, 700, date(2026, 11, 21)),
        (49, 700, date(2026, 11, 21)),
        (50, 700, date(2026, 11, 22)),
        (1000, 700, date(2026, 12, 1)),
        (10**15, 1, None),
        (10**15, 10**15, date(2026, 11, 28)),
    ],
)
def test_the_day_on_which_it_is_gone(left: int, used: int, expected: date | None) -> None:
    assert runs_out(left, used, NOON) == expected


@pytest.mark.parametrize(
    ("left", "expected"), [(699, date(2026, 11, 28)), (700, None), (10**15, None), (0, date(2026, 11, 21))]
)
def test_what_lasts_until_it_begins_anew_does_not_run_out(left: int, expected: date | None) -> None:
    assert runs_out(left, 700, NOON, ends_at=NOON + 7 * DAY_MS) == expected


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(0, at("2200-01-01")))
def test_a_forecast_never_lies_in_the_past(left: int, used: int, now: int) -> None:
    found = runs_out(left, used, now)
    assert found is None or found >= date(1970, 1, 1) + timedelta(days=now // DAY_MS)
