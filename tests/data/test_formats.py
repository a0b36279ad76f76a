"""Numbers, dates, durations and identifiers, against the standard library's and pandas' own answers.

Whole files are read and written in `test_data_zoo.py`; here each format is asked alone.
"""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest

from data.formats import (
    DateTimeFormat,
    DurationFormat,
    Instants,
    InstantsSeen,
    NumberFormat,
    Part,
    SourceTable,
    fitting_parts,
    instants_of,
    parts_of,
)
from data.formats.columns import SourceColumns
from data.formats.identifiers import IdentifierFormat

SECOND, DAY = 1_000_000_000, 86_400_000_000_000
EPOCH = date(1970, 1, 1).toordinal()


# Numbers


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        ("$#,##0.00;()", {"$1,234.50": 1234.5, "($7.00)": -7, "$0.00": 0, "$1,234,567.89": 1234567.89}),
        ("#.##0,00 €", {"1.234,50 €": 1234.5, "-1.234,50 €": -1234.5, "0,05 €": 0.05}),
        ("0.00;-", {"5.25": 5.25, "5.25-": -5.25}),
        ("$0.0;p-", {"$5.5": 5.5, "$-5.5": -5.5}),
        ("#,##,##0", {"999": 999, "1,000": 1000, "1,00,000": 100_000, "-12,34,567": -1234567}),
        ("0.##", {"1": 1, "1.5": 1.5, "0.25": 0.25, "-0.25": -0.25}),
        ("0.0%", {"12.5%": 12.5, "-3.0%": -3}),
        ("0.0#[K|M]", {"1.5K": 1500, "2.25M": 2_250_000, "-1.5K": -1500, "-3.0M": -3_000_000, "0.5K": 500}),
        ("0.0[M|B|T]", {"1.5M": 1.5e6, "2.0B": 2e9, "3.5T": 3.5e12}),
    ],
)
def test_numbers_are_read_and_written_by_their_pattern(pattern: str, written: dict[str, float]) -> None:
    form = NumberFormat(pattern)
    values, bad = form.read([*written, None])
    assert values[:, 0].tolist()[:-1] == list(written.values())
    assert np.isnan(values[-1, 0])
    assert not bad.any()
    texts = form.write(values)
    assert texts[-1] is None
    assert texts[:-1] == list(written)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        *itertools.product(["0.00", "$#,##0.00;()"], ["", "-", "--5", "+-5", "(5", "5)", "1e400", "nan", "5 5", "x"]),
        ("0", "1,234"),
        ("#,##0", "1,23"),
        ("#,##0", "12,34,567"),
        ("#,##,##0", "1,234,567"),
        ("0.0%", "5.0$"),
        ("0[K]", "5M"),
    ],
)
def test_what_is_no_such_number_is_none(pattern: str, text: str) -> None:
    assert NumberFormat(pattern).read_one(text) is None


# Dates and times


def days_of(day: date) -> int:
    return day.toordinal() - EPOCH


WHEN = [
    datetime(2024, 2, 29, 0, 0, 0),
    datetime(2023, 12, 31, 23, 59, 59),
    datetime(2024, 12, 30, 12, 0, 1),  # of the first week of 2025
    datetime(2021, 1, 3, 11, 59, 0),  # of the last of 2020
    datetime(1999, 7, 4, 13, 5, 9),
    datetime(1969, 5, 6, 1, 2, 3),
]


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("%Y-%m-%d %H:%M:%S", timedelta(seconds=1)),
        ("%d/%m/%y %H:%M", timedelta(minutes=1)),
        ("%Y%m%d%H%M%S", timedelta(seconds=1)),
        ("%B %d, %Y", timedelta(days=1)),
        ("%A %d %b %Y", timedelta(days=1)),
        ("%d %b %Y %I:%M:%S %p", timedelta(seconds=1)),
        ("%G-W%V-%u", timedelta(days=1)),
    ],
)
def test_dates_are_those_of_strftime(pattern: str, kept: timedelta) -> None:
    form = DateTimeFormat(pattern)
    for when in WHEN:
        days, clock, offset = form.instant(when.strftime(pattern)) or (None, None, None)
        rest = when - datetime.combine(when.date(), datetime.min.time())
        assert (days, offset) == (days_of(when.date()), 0)
        assert clock == (rest // kept) * (kept // timedelta(microseconds=1)) * 1000
        assert form.text(days, clock, 0) == when.strftime(pattern)


def test_dates_have_quarters_zones_fractions_and_fields_without_zeros() -> None:
    for month in range(1, 13):
        quarter = pd.Timestamp(2023, month, 15).quarter
        start = date(2023, 3 * quarter - 2, 1)
        assert DateTimeFormat("%Y-Q%q").instant(f"2023-Q{quarter}") == (days_of(start), 0, 0)
        assert DateTimeFormat("%Y-Q%q").text(days_of(date(2023, month, 15)), 0, 0) == f"2023-Q{quarter}"
    day = days_of(date(2023, 3, 4))
    for zone, minutes in (("+05:30", 330), ("-03:30", -210), ("+00:00", 0)):
        form, text = DateTimeFormat("%Y-%m-%dT%H:%M:%S%:z"), f"2023-03-04T05:06:07{zone}"
        assert form.instant(text) == (day, (5 * 3600 + 6 * 60 + 7) * SECOND, minutes)
        assert form.text(day, (5 * 3600 + 6 * 60 + 7) * SECOND, minutes) == text
    assert DateTimeFormat("%Y-%m-%d %H:%M:%S.%3f").instant("2023-03-04 00:00:01.25") == (day, 1_250_000_000, 0)
    assert DateTimeFormat("%Y-%m-%d %H:%M:%S.%3f").text(day, 1_250_000_000, 0) == "2023-03-04 00:00:01.250"
    assert DateTimeFormat("%-d.%-m.%y").text(day, 0, 0) == "4.3.23"
    for text, clock in (("00:00:01.25", 1_250_000_000), ("00:00:01", SECOND)):  # no zeros at the end
        assert DateTimeFormat("%Y-%m-%d %H:%M:%S.%-6f").instant(f"2023-03-04 {text}") == (day, clock, 0)
        assert DateTimeFormat("%Y-%m-%d %H:%M:%S.%-6f").text(day, clock, 0) == f"2023-03-04 {text}"
    for clock in (1_250_000_000, SECOND):  # as Python has it
        form, when = (
            DateTimeFormat("%Y-%m-%dT%H:%M:%S.%~6f"),
            datetime(2023, 3, 4) + timedelta(microseconds=clock // 1000),
        )
        assert form.instant(when.isoformat()) == (day, clock, 0)
        assert form.text(day, clock, 0) == when.isoformat()
    for zone, minutes in (("+1", 60), ("+5:30", 330), ("-11", -660)):
        assert DateTimeFormat("%Y-%m-%d GMT%-z").instant(f"2023-03-04 GMT{zone}") == (day, 0, minutes)
        assert DateTimeFormat("%Y-%m-%d GMT%-z").text(day, 0, minutes) == f"2023-03-04 GMT{zone}"
    assert DateTimeFormat("%Y-%m-%d %H:%M").instant("2023-03-03 24:00") == (day, 0, 0)
    assert DateTimeFormat("%Y-%m-%d %H:%M").instant("2023-03-03 24:01") is None
    assert DateTimeFormat("%H:%M").instant("24:00") is None  # no day after
    for hour, written in ((0, "12"), (11, "11"), (12, "12"), (23, "11")):
        text = f"{written}:30 {'AM' if hour < 12 else 'PM'}"
        assert DateTimeFormat("%I:%M %p").instant(text) == (0, (60 * hour + 30) * 60 * SECOND, 0)
        assert DateTimeFormat("%I:%M %p").text(0, (60 * hour + 30) * 60 * SECOND, 0) == text


@pytest.mark.parametrize("text", ["2023-02-29", "2023-13-01", "2023-00-10", "2023-01-00", "23-01-01", "2023-1", ""])
def test_what_is_no_date_is_none(text: str) -> None:
    assert DateTimeFormat("%Y-%m-%d").instant(text) is None
    assert DateTimeFormat("%Y-%m-%d %H:%M").instant(f"2023-01-01 {text}") is None
    assert all(DateTimeFormat("%I:%M %p").instant(wrong) is None for wrong in ("00:10 AM", "13:10 PM", "12:60 AM"))


EVERY_DAY = np.arange(days_of(date(1995, 12, 25)), days_of(date(2029, 1, 5)))


def learned(days: np.ndarray, *parts: str) -> tuple[np.ndarray, np.ndarray, tuple[Part, ...]]:
    parsed, zero = tuple(map(Part.parse, parts)), np.zeros(len(days), np.int64)
    return *parts_of(Instants(days, zero, zero), parsed), parsed


@pytest.mark.parametrize(
    ("parts", "kept", "values"),
    [
        (("year", "week", "weekday"), lambda d: np.full(len(d), True), lambda d: [
            d.year, (d.day_of_year - 1) // 7, d.day_of_week]),
        (("year", "month"), lambda d: d.is_month_start, lambda d: [d.year, d.month - 1]),
        (("year", "month_end"), lambda d: d.is_month_end, lambda d: [d.year, d.month - 1]),
        (("year", "quarter"), lambda d: d.is_quarter_start, lambda d: [d.year, d.quarter - 1]),
    ],
)  # fmt: skip
def test_days_are_learned_as_pandas_counts_them_and_come_back(parts, kept, values) -> None:
    """Every day of 33 years; what the parts cannot say is said to be so."""
    when = pd.DatetimeIndex(EVERY_DAY.astype("datetime64[D]"))
    found, wrong, parsed = learned(EVERY_DAY, *parts)
    said = np.asarray(kept(when))
    assert (wrong == ~said).all()
    np.testing.assert_array_equal(found[said], np.stack(values(when), 1)[said])
    np.testing.assert_array_equal(instants_of(found, parsed).days[said], EVERY_DAY[said])


def test_any_learned_values_are_a_day_of_their_year() -> None:
    """Also the 53rd week of a year that has a day of it or two."""
    parsed = tuple(map(Part.parse, ("year", "week", "weekday")))
    drawn = np.array(list(itertools.product(range(1999, 2030), range(54), range(7))), np.float64)
    days = instants_of(drawn, parsed).days.astype("datetime64[D]")
    assert (pd.DatetimeIndex(days).year == drawn[:, 0]).all()
    assert (pd.DatetimeIndex(days).day_of_week == drawn[:, 2]).all()


def test_the_clock_counts_in_the_step_that_all_batches_share() -> None:
    seen, zero = InstantsSeen(), np.zeros(4, np.int64)
    for minutes in ([0, 30, 45, 90], [10, 20, 70, 600]):
        seen.add(Instants(zero, np.array(minutes) * 60 * SECOND, zero))
    (part,) = fitting_parts(seen, dated=False, timed=True, zoned=False)
    assert (str(part), part.step) == ("clock:5min", 300 * SECOND)


# Durations


@pytest.mark.parametrize(
    ("pattern", "seconds", "text"),
    [
        ("H:MM:SS", 3723, "1:02:03"),
        ("H:MM:SS", 100 * 3600 + 59, "100:00:59"),
        ("H:MM:SS", -61, "-0:01:01"),
        ("H:MM:SS.fff", 1.25, "0:00:01.250"),
        ("M:SS", 3723, "62:03"),
        ("D days HH:MM:SS", 2 * 86400 + 3723, "2 days 01:02:03"),
        ("D days HH:MM:SS", -3723, str(pd.Timedelta(seconds=-3723))),
        ("D days HH:MM:SS", -86400, str(pd.Timedelta(seconds=-86400))),
        ("[D days,] H:MM:SS", 86400 + 3723, str(timedelta(seconds=86400 + 3723))),
        ("[D days,] H:MM:SS", 3723, str(timedelta(seconds=3723))),
        ("[D days,] H:MM:SS", -3723, str(timedelta(seconds=-3723))),
        ("[D days] HH:MM:SS", 86400 + 3723, "1 day 01:02:03"),  # PostgreSQL's
        ("[D days] HH:MM:SS", 3 * 86400, "3 days 00:00:00"),
        ("[D days] HH:MM:SS", -(86400 + 3723), "-1 days -01:02:03"),
        ("[D days] HH:MM:SS.ff", -1.5, "-00:00:01.50"),
        ("HH:MM:SS", 26 * 3600, "26:00:00"),
        ("MM:SS.f", 65.5, "01:05.5"),
        ("ISO", 86400 + 2 * 3600 + 30 * 60, "P1DT2H30M"),
        ("ISO", 3 * 86400, "P3D"),
        ("ISO", 49 * 3600 + 5, "P2DT1H5S"),
        ("ISO", 0, "PT0S"),
        ("ISO.ff", 1.5, "PT1.50S"),
        ("%-Hh %-Mm", 26 * 3600 + 5 * 60, "26h 5m"),
        ("%-Hh %-Mm", 45 * 60, "45m"),
        ("%Hh %0Mm", -(2 * 3600 + 5 * 60), "-2h 05m"),
        ("%Dd %Hh", 3 * 86400 + 7 * 3600, "3d 7h"),
    ],
)
def test_durations_are_read_and_written(pattern: str, seconds: float, text: str) -> None:
    form, clock = DurationFormat(pattern, (Part.parse("duration:1ms"),)), round(seconds * SECOND)
    assert form.instant(text) == (0, clock, 0)
    assert form.text(0, clock, 0) == text
    for wrong in ("", "1", "1:60", "P", "PT", "1:2:3:4", "m", "one"):
        assert form.instant(wrong) is None, wrong


# Identifiers


def test_running_numbers_go_on_by_their_step() -> None:
    form = IdentifierFormat(start=1020, step=10, prefix="c-", width=6)
    assert form.draw(3, np.random.default_rng(0)) == ["c-001020", "c-001030", "c-001040"]


def test_texts_around_numbers_reach_both_ends_of_each_range() -> None:
    form = IdentifierFormat(texts=("a", "-", "z"), unused=((7,), (9,)), ranges=((1, 9, 1), (3, 5, 2)))
    every = {f"a{head}-{tail:02}z" for head in (7, 9) for tail in (3, 4, 5)}
    seen = set().union(*(form.draw(3, np.random.default_rng(seed)) for seed in range(30)))
    assert seen == every  # none begins with a number that a real one begins with
    many = form.draw(20, np.random.default_rng(0))
    assert len(set(many)) == 20


def test_each_column_of_identifiers_is_drawn_by_itself_and_by_the_seed() -> None:
    letters = {"alphabet": ["ABCDEFGHIJ"] * 8, "unused": ["QX", "ZK"], "start": 0, "step": 0, "prefix": "", "width": 0}
    source = [
        {"name": name, "role": "identifier", "dtype": "string", "identifier": letters, "columns": []}
        for name in ("order", "customer")
    ]
    table = SourceTable(source=source, columns=[])
    one, again, other = (table.cells(np.empty((50, 0)), seed=seed) for seed in (0, 0, 1))
    assert one == again
    drawn = [set(cells[name]) for cells in (one, other) for name in ("order", "customer")]
    assert all(len(each) == 50 for each in drawn)
    assert not any(a & b for a, b in itertools.combinations(drawn, 2))  # 50 of 2·10⁶ meet by chance in one of 800
    assert all(text[:2] in ("QX", "ZK") and len(text) == 8 and set(text[2:]) <= set("ABCDEFGHIJ") for text in drawn[0])


# Columns as rules see them


@pytest.mark.parametrize("minutes", [0, 330, -210])
def test_dates_with_a_zone_are_compared_in_universal_time(minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    parts = ["year", "week", "weekday", "clock:1s", f"offset={minutes}"]
    places = [{"name": f"at.{i}", "type": "integer", "dtype": "int64"} for i in range(4)]
    entry = {"name": "at", "role": "datetime", "pattern": "%Y-%m-%dT%H:%M:%S%:z", "parts": parts}
    columns = SourceColumns([{**entry, "dtype": "string", "columns": [0, 1, 2, 3]}], places)
    form = DateTimeFormat(entry["pattern"], tuple(map(Part.parse, parts)))
    moments = [when.replace(tzinfo=zone) for when in WHEN]
    full, bad = form.read([when.isoformat() for when in moments])
    assert not bad.any()
    value = columns.values(full, ["at"])["at"]
    assert value.tolist() == [
        (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for when in moments
    ]
    back = np.full_like(full, np.nan)
    assert not columns.write("at", value, back).any()
    np.testing.assert_array_equal(back, full)
    assert form.write(back) == [when.isoformat() for when in moments]


def test_durations_are_compared_in_microseconds() -> None:
    entry = {"name": "took", "role": "duration", "pattern": "H:MM:SS", "parts": ["duration:1s"], "dtype": "string"}
    columns = SourceColumns([{**entry, "columns": [0]}], [{"name": "took", "type": "integer", "dtype": "int64"}])
    form = DurationFormat("H:MM:SS", tuple(map(Part.parse, entry["parts"])))
    full, _ = form.read(["1:02:03", "100:00:00", "-0:00:01", None])
    value = columns.values(full, ["took"])["took"]
    assert value.tolist()[:3] == [timedelta(seconds=s) / timedelta(microseconds=1) for s in (3723, 360_000, -1)]
    back = np.full_like(full, 7.0)
    assert not columns.write("took", value, back).any()
    np.testing.assert_array_equal(back, full)
