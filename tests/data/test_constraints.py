"""What every row of a table obeys: found in its rows, refused where broken, kept whatever a model draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import fivefold
from data import formats
from data.cards import Card, Constraint, load_card
from data.dataset import Dataset
from data.domains.source_table import source_table
from data.formats import Constraints, SourceTable
from data.ingest.build import build
from data.ingest.inspect import card_text, inspect, write_card
from data.readers.base import here
from pipelines.serving.domains.base import redrawn
from pipelines.serving.domains.source_table import SourceTables
from pipelines.stages.prepare import prepare

PLACES = {"Oslo": ("NO", 1), "Bergen": ("NO", 2), "Rome": ("IT", 3), "Paris": ("FR", 7), "Lyon": ("FR", 4)}


@lru_cache
def orders(n: int = 600) -> pd.DataFrame:
    """Rows that obey a rule of every kind, and one column that obeys none."""
    random = np.random.default_rng(0)
    net, ship = random.gamma(2, 50, n).round(2), random.gamma(2, 20, n).round(2)
    rate, nights = random.gamma(9, 12, n).round(2), random.integers(1, 9, n)
    arrive = pd.Timestamp("2023-01-01") + pd.to_timedelta(random.integers(0, 500, n), "D")
    start = pd.Timestamp("2021-01-04 08:00") + pd.to_timedelta(random.integers(0, 200_000, n), "min")
    minutes = random.integers(5, 600, n)
    low = random.normal(10, 3, n).round(1)
    high = (low + random.gamma(1, 2, n)).round(1)
    city = random.choice(list(PLACES), n)
    frame = pd.DataFrame({"net": net, "shipping fee": ship, "tax": random.gamma(2, 3, n).round(2)})
    frame["gross"] = (frame.net + frame["shipping fee"] + frame.tax).round(2)
    frame["rate"], frame["nights"], frame["total"] = rate, nights, [f"{v:,.2f} €" for v in (rate * nights).round(2)]
    frame["arrive"] = arrive.strftime("%d.%m.%Y")
    frame["leave"] = (arrive + pd.to_timedelta(nights, "D")).strftime("%d.%m.%Y")
    frame["start"] = start.strftime("%Y-%m-%d %H:%M")
    frame["end"] = (start + pd.to_timedelta(minutes, "min")).strftime("%Y-%m-%d %H:%M")
    frame["minutes"], frame["low"], frame["high"] = minutes, low, high
    frame["city"] = city
    frame["country"], frame["rank"] = [PLACES[c][0] for c in city], [PLACES[c][1] for c in city]
    frame["free"] = random.normal(50, 20, n).round(3)
    return frame


FOUND = {
    "gross = net + shipping fee + tax", "total = rate * nights", "nights = leave - arrive",
    "minutes = end - start in minutes", "arrive < leave", "start < end", "low <= high", "city, country, rank",
}  # fmt: skip


def broken(frame: pd.DataFrame, known: pd.DataFrame) -> dict[str, int]:
    """Rows that break each rule, by pandas alone; gaps break none."""
    number = {name: pd.to_numeric(frame[name]) for name in ("net", "shipping fee", "tax", "gross", "rate", "nights")}
    number["total"] = pd.to_numeric(frame.total.str.replace(r"[^\d.-]", "", regex=True))
    arrive, leave = (pd.to_datetime(frame[name], format="%d.%m.%Y") for name in ("arrive", "leave"))
    start, end = pd.to_datetime(frame.start), pd.to_datetime(frame.end)
    low, high, minutes = (pd.to_numeric(frame[name]) for name in ("low", "high", "minutes"))
    gross = number["net"] + number["shipping fee"] + number["tax"]
    places = set(known[["city", "country", "rank"]].astype(str).itertuples(index=False, name=None))
    whole = frame[["city", "country", "rank"]].dropna()
    mine = whole.assign(rank=whole["rank"].astype(float).astype(int)).astype(str).itertuples(index=False, name=None)
    return {
        "gross": int(((number["gross"] - gross).abs() > 1e-6).sum()),
        "total": int(((number["total"] - number["rate"] * number["nights"]).abs() > 1e-6).sum()),
        "nights": int(((leave - arrive).dt.days - number["nights"]).abs().gt(0).sum()),
        "minutes": int((((end - start).dt.total_seconds() / 60 - minutes).abs() > 0).sum()),
        "order": int((arrive >= leave).sum() + (start >= end).sum() + (low > high).sum()),
        "places": sum(place not in places for place in mine),
    }


def prepared(frame: pd.DataFrame, root: Path, change: Callable[[Card], Card] = lambda card: card) -> dict[str, Any]:
    """The manifest of a table as `data add` and `prepare` leave it."""
    frame.to_csv(root / "rows.csv", index=False)
    write_card(inspect("rows.csv", "rows", root), root)
    return build(change(load_card("rows", root)), root, root / "out", here)


def with_gaps(frame: pd.DataFrame, share: float, seed: int = 1) -> pd.DataFrame:
    return frame.mask(np.random.default_rng(seed).random(frame.shape) < share)


def mixed(manifest: dict[str, Any], root: Path) -> np.ndarray:
    """Learned columns each in an order of its own: what a model draws that has understood no dependence at all."""
    x = Dataset.open(root / "out").split("train").slice(0, 10**6).x.numpy().copy()
    for column in range(x.shape[1]):
        np.random.default_rng(column).shuffle(x[:, column])
    return x


@pytest.mark.parametrize("gaps", [0.0, 0.04])
def test_rules_are_found_and_kept_by_whatever_is_drawn(tmp_path: Path, gaps: float) -> None:
    frame = with_gaps(orders(), gaps)
    manifest = prepared(frame, tmp_path)
    stated = load_card("rows", tmp_path).constraints
    assert {rule.rule or ", ".join(rule.combination) for rule in stated} == FOUND
    table = source_table(manifest)
    cells = [  # nothing is lost on the way through what is learned
        pd.DataFrame(table.cells(Dataset.open(tmp_path / "out").split(name).slice(0, 10**6).x.numpy()))
        for name in manifest["splits"]
    ]
    again = pd.concat(cells)[list(frame)]
    shown = {name: set(again[name].dropna().astype(str)) for name in frame}
    assert shown["total"] <= set(frame.total.dropna()) | {f"{v:,.2f} €" for v in (orders().rate * orders().nights)}
    if not gaps:
        before = frame.astype(str).sort_values(list(frame)).reset_index(drop=True)
        after = again.astype(str).sort_values(list(frame)).reset_index(drop=True)
        pd.testing.assert_frame_equal(before, after, check_dtype=False)
    drawn = pd.DataFrame(table.cells(mixed(manifest, tmp_path)))
    by_redrawing = gaps and any(rule.by for rule in stated)
    assert broken(drawn, orders()) | ({"order": 0} if by_redrawing else {}) == dict.fromkeys(broken(drawn, orders()), 0)
    assert drawn.isna().mean().to_numpy() == pytest.approx(again.isna().mean().to_numpy(), abs=0.06)
    assert len(set(drawn.total.dropna())) > 100


def test_numbers_within_a_cell_keep_their_order(tmp_path: Path) -> None:
    """An estimate lies within its bounds, and a number is more than the first of a cell if it always is."""
    random = np.random.default_rng(0)
    middle = random.normal(50, 5, 400)
    low, high = middle - random.gamma(4, 1, 400), middle + random.gamma(4, 1, 400)
    cells = [f"{m:.1f} [{a:.1f}-{b:.1f}]" for m, a, b in zip(middle, low, high, strict=True)]
    frame = pd.DataFrame({"est": cells, "top": (middle + 30 + random.gamma(2, 9, 400)).round(2)})
    manifest = prepared(frame, tmp_path)
    assert {rule["rule"] for rule in manifest["constraints"]["rules"]} == {
        "est.2 < est.1",
        "est.1 < est.3",
    }
    drawn = pd.DataFrame(source_table(manifest).cells(mixed(manifest, tmp_path)))
    found = drawn["est"].str.extract(r"^([\d.]+) \[(-?[\d.]+)-([\d.]+)\]$").astype(float)
    assert found.notna().all(axis=None)
    assert ((found[1] <= found[0]) & (found[0] <= found[2])).all()
    frame.loc[7, "est"] = "50.0 [51.0-70.0]"
    frame.to_csv(tmp_path / "rows.csv", index=False)
    sha256 = inspect("rows.csv", "x", tmp_path).card.source.sha256
    card = load_card("rows", tmp_path)
    with pytest.raises(ValueError, match=r"row 9.*est\.2 < est\.1.*est = '50\.0 \[51\.0-70\.0\]'"):
        build(replace(card, source=replace(card.source, sha256=sha256)), tmp_path, tmp_path / "out", here)


def test_columns_that_name_a_row_each_are_said_but_not_stated(tmp_path: Path) -> None:
    """A day each, shuffled; beside it large whole numbers, which differ by chance, and days of which one is twice."""
    random, n = np.random.default_rng(3), 300
    day = pd.Timestamp("2019-01-01") + pd.to_timedelta(random.permutation(n), "D")
    twice = np.roll(np.where(day == day.min(), day.max(), day), 1).astype("M8[D]")
    pd.DataFrame({
        "day": day.strftime("%Y-%m-%d"), "twice": twice,
        "count": random.integers(0, 10**7, n), "x": random.normal(size=n).round(3),
    }).to_csv(tmp_path / "t.csv", index=False)  # fmt: skip
    found = inspect("t.csv", "t", tmp_path)
    assert [line.partition(",")[0] for line in found.warnings if "no two rows" in line] == [
        "no two rows have the same 'day'"
    ]
    assert not found.card.constraints


def test_what_holds_by_accident_is_not_proposed(tmp_path: Path) -> None:
    """Independent columns, ranges that do not meet, a constant factor, few rows."""
    random = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "a": random.integers(0, 50, 400),
            "b": random.integers(60, 90, 400),  # above a whatever the row
            "c": random.integers(0, 2, 400),
            "city": random.choice(list("xyz"), 400),
            "kind": random.choice(list("pq"), 400),
        }
    )
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert inspect("rows.csv", "rows", tmp_path).card.constraints == ()
    orders().head(12).to_csv(tmp_path / "few.csv", index=False)
    assert inspect("few.csv", "few", tmp_path).card.constraints == ()


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("leave", "01.01.2020", r"row 5: breaks the constraint"),
        ("gross", "1.00", r"row 5: breaks the constraint gross = .*expected gross = .*'1.00'"),
        ("country", "FR", None),  # a combination that occurs is no fault
    ],
)
def test_rows_that_break_the_card_are_refused_or_counted(
    tmp_path: Path, column: str, value: str, said: str | None
) -> None:
    """The card is kept while the source changes, as when a later export is put in its place."""
    prepared(orders(), tmp_path)
    frame = orders().astype(str)
    frame.loc[3, column] = value
    frame.loc[7, column] = value
    frame.to_csv(tmp_path / "rows.csv", index=False)
    card = load_card("rows", tmp_path)
    card = replace(card, source=replace(card.source, sha256=inspect("rows.csv", "x", tmp_path).card.source.sha256))
    if said is None:
        build(card, tmp_path, tmp_path / "out", here)
        return
    with pytest.raises(ValueError, match=said) as error:
        build(card, tmp_path, tmp_path / "out", here)
    assert "rows 5, 9" in str(error.value)
    kept = build(replace(card, on_bad="drop"), tmp_path, tmp_path / "out", here)
    assert sum(split["count"] for split in kept["splits"].values()) == len(frame) - 2
    build(replace(card, constraints=()), tmp_path, tmp_path / "out", here)  # the plain switch


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"rule": "gross = nett + tax"}, "no column 'nett'; did you mean 'net'"),
        ({"rule": "net <"}, "a rule is like"),
        ({"rule": "gross = net + tax * rate"}, r"mixes \* with"),
        ({"rule": "arrive <= net"}, "both must be numbers, dates or durations"),
        ({"combination": ("city",)}, "2 or more different columns"),
        ({"rule": "net = gross - tax", "unique": ("city",)}, "exactly one of"),
    ],
)
def test_a_card_that_states_nonsense_is_refused(tmp_path: Path, stated: dict[str, Any], said: str) -> None:
    orders(60).to_csv(tmp_path / "rows.csv", index=False)
    inspection = inspect("rows.csv", "rows", tmp_path)
    inspection.card = replace(inspection.card, constraints=(Constraint(**stated),))
    (tmp_path / "data/catalog").mkdir(parents=True)
    (tmp_path / "data/catalog/rows.yaml").write_text(card_text(inspection), encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        prepare("rows", root=tmp_path, mapper=here)


def test_columns_in_months_and_names_with_operators(tmp_path: Path) -> None:
    """Gaps between months count months; a name that could be misread stands between backticks."""
    random = np.random.default_rng(5)
    first = pd.period_range("2019-01", periods=40, freq="M")[random.integers(0, 40, 300)]
    frame = pd.DataFrame({"from - month": first.astype(str), "to": (first + random.integers(0, 9, 300)).astype(str)})
    frame["x"] = random.normal(0, 1, 300).round(3)
    manifest = prepared(frame, tmp_path)
    assert [rule.rule for rule in load_card("rows", tmp_path).constraints] == ["`from - month` <= to"]
    drawn = pd.DataFrame(source_table(manifest).cells(mixed(manifest, tmp_path)))
    assert (drawn["from - month"] <= drawn.to).all()  # ISO months sort as texts
    assert drawn.to.nunique() > 30


def keyed() -> SourceTables:
    """A table of two codes that together are in no two rows."""
    column = {"type": "integer", "dtype": "int64", "categories": []}
    columns = [{"name": name, **column} for name in ("a", "b")]
    source = [
        {"name": n, "role": "number", "dtype": "int64", "pattern": "", "columns": [i]} for i, n in enumerate("ab")
    ]
    stated = {
        "columns": columns,
        "rules": [{"unique": ["a", "b"]}, {"rule": "a <= b", "by": "redraw"}],
        "occurring": {},
    }
    return SourceTables({"kind": "table", "columns": columns}, source, formats, stated)


def test_what_has_no_form_is_drawn_again_and_said_where_it_cannot_be_met() -> None:
    """Of 5 codes there are 15 pairs in order: 15 rows can be drawn, a sixteenth cannot."""
    random = torch.Generator().manual_seed(0)

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return torch.randint(0, 5, (len(rows), 2), generator=random).double()

    drawn = keyed().write(redrawn(draw(torch.arange(15)), keyed(), draw))
    assert sorted(map(tuple, drawn.to_numpy().tolist())) == [(a, b) for a in range(5) for b in range(a, 5)]
    with pytest.raises(ValueError, match=r"1 of 16 rows .* still break a constraint .* a <= b"):
        redrawn(draw(torch.arange(16)), keyed(), draw)


def test_a_model_draws_fills_in_and_scores_by_the_rules() -> None:
    """Cells given stay as they are, gaps are filled so that every rule holds, rows that break one have no density."""
    frame = orders()
    settings = {"model.steps": 2, "model.width": 16, "training.batch_size": 64}
    model = fivefold.fit(frame, "flow", examples=3000, settings=settings, progress=False)
    assert not any(broken(model.sample(300), frame).values())
    partly = with_gaps(frame.head(60), 0.3)
    filled = model.impute(partly, draws=2)
    assert not any(broken(filled, frame).values())
    assert not filled.isna().to_numpy().any()
    for name in frame:
        known = partly[name].notna().to_numpy()
        given, back = (pd.concat([partly] * 2)[name][np.tile(known, 2)], filled[name][np.tile(known, 2)])
        assert back.tolist() == pytest.approx(given.tolist()) if given.dtype.kind == "f" else given.tolist(), name
    rows = frame.head(3).copy()
    rows.loc[1, "gross"] += 1
    assert np.isposinf(model.anomaly_score(rows)).tolist() == [False, True, False]
    assert np.isneginf(model.log_density(rows)).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="row 1 breaks a constraint of the data: gross = net"):
        model.impute(rows)


def one_category(frequencies: list[int]) -> SourceTable:
    """Two categories of which three combinations occur, learned as one."""
    full = [{"name": n, "type": "categorical", "dtype": "string", "categories": ["x", "y"]} for n in "ab"]
    source = [
        {"name": n, "role": "category", "dtype": "string", "pattern": "", "columns": [i]} for i, n in enumerate("ab")
    ]
    learned = {"name": "a & b", "type": "categorical", "dtype": "string", "categories": ["x & x", "x & y", "y & x"]}
    stated = {
        "columns": full,
        "rules": [{"combination": ["a", "b"]}],
        "occurring": {"0": [[0, 0], [0, 1], [1, 0]]},
    }
    return SourceTable(source=source, columns=[learned | {"frequencies": frequencies}], stated=stated)


def test_of_the_combinations_that_fit_what_is_given_each_is_drawn_as_often_as_it_occurs() -> None:
    n = 400
    table, drawn = one_category([300, 30, 500]), np.full((n, 1), 2.0)  # y & x, which fits no given x
    given = {"a": np.zeros(n), "b": np.full(n, np.nan)}
    rows = table.rows(drawn, given)
    assert (rows[:, 0] == 0).all()
    assert rows[:, 1].mean() == pytest.approx(30 / 330, abs=0.06)  # four deviations
    np.testing.assert_array_equal(table.rows(drawn, given), rows)
    assert (table.rows(drawn, given, seed=1) != rows).any()
    for code, cells in enumerate(([0, 0], [0, 1], [1, 0])):  # what is drawn stands where it fits
        told = {"a": np.full(n, np.nan), "b": np.full(n, cells[1] if code == 1 else np.nan)}
        assert (table.rows(np.full((n, 1), code), told) == cells).all()
    assert table.constraints.kept_how == ["they are learned as one category"]


def test_how_each_rule_is_kept_is_said() -> None:
    number = {"type": "integer", "dtype": "int64", "categories": []}
    source = [
        {"name": n, "role": "number", "dtype": "int64", "pattern": "", "columns": [i]} for i, n in enumerate("abct")
    ]
    rules = [{"rule": "a <= b"}, {"rule": "b <= c", "by": "redraw"}, {"rule": "t = a + c"}, {"unique": ["c"]}]
    found = Constraints(rules, source, [{"name": n, **number} for n in "abct"])
    again = "rows that break it are drawn again"
    assert found.kept_how == [
        "learned is how far 'b' is above 'a'", again, "'t' is not learned but computed", again,
    ]  # fmt: skip


def test_rows_that_repeat_what_is_unique_are_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(60) % 8, "b": np.arange(60) // 8, "x": np.arange(60) / 8})
    frame.loc[[20, 30], ["a", "b"]] = frame.loc[[10, 10], ["a", "b"]].to_numpy()
    unique = (Constraint(unique=("a", "b")),)
    with pytest.raises(ValueError, match=r"2 rows repeat earlier ones \(rows 22, 32\)"):  # the header is row 1
        prepared(frame, tmp_path, lambda card: replace(card, constraints=unique))


def test_columns_that_are_missing_together_stay_a_combination(tmp_path: Path) -> None:
    """In a tenth of the rows, of which nothing is lost; where one of them alone is, the other would be."""
    places = list(PLACES)
    random = np.random.default_rng(0)
    city = random.integers(0, len(places), 200)
    frame = pd.DataFrame({"city": [places[i] for i in city], "country": [PLACES[places[i]][0] for i in city]})
    frame["x"] = random.normal(size=200).round(3)
    for name, gone, found in (("together", ["city", "country"], {("city", "country")}), ("alone", ["city"], set())):
        rows = frame.copy()
        rows.loc[random.random(200) < 0.1, gone] = None
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
        constraints = inspect(f"{name}.csv", name, tmp_path).card.constraints
        assert {rule.combination for rule in constraints if rule.combination} == found


class Capped(SourceTables):
    """Rows of one number, none above what is given of its row."""

    def obeys(self, x, *, seed=0, given=None, alone=False):
        return x[..., 0] <= torch.from_numpy(given["cap"])


@pytest.mark.parametrize("draws", [(), (3,)])
def test_only_what_breaks_a_rule_is_drawn_again_by_what_is_given_of_its_row(draws: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randint(0, 10, (*draws, 40, 1), generator=random) + 0.5
    before, given = x.clone(), {"cap": 1.0 + np.arange(40) % 9}

    def again(chosen: torch.Tensor) -> torch.Tensor:
        return torch.randint(0, 10, (*draws, len(chosen), 1), generator=random).float()

    found = redrawn(x, Capped.__new__(Capped), again, given=given)[..., 0]
    cap = torch.from_numpy(given["cap"])
    assert (found <= cap).all()
    kept = before[..., 0] <= cap
    assert torch.equal(found[kept], before[..., 0][kept])
    assert (found[~kept] % 1 == 0).all()
