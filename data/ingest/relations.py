"""What every row of a table obeys, found in its rows: orders, sums, products and combinations that are no accident."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.cards import Constraint
from data.formats import SPANS, Constraints, with_numbers, written_name

SAMPLE = 4096
"""Rows in which relations are looked for; those found are checked in all."""
FIRST = 64
FEWEST = 20
"""Rows below which nothing is proposed."""
CHANCE = math.log(1e-6)
"""How likely an accident may be, all that was tried taken together."""
MOST_BY_CHANCE = 0.9
"""An order that so many of independently drawn pairs would obey, too, says nothing."""
MOST_LOST = 0.05
"""Share of rows in which gaps may leave nothing to compute a column of, or hide what is known of it."""
MOST_NUMBERS = 120
MOST_CODES = 200
"""A number with more values is not taken for what a category determines."""
MOST_KEYS = 4
"""Columns without repeated values that are followed through all rows."""
SPAN_UNITS = ("days", "hours", "minutes", "seconds")


class Relations:
    """Looks for relations in rows, chunk by chunk, in flat memory.

    Arguments:
        source: The manifest's `table`.
        columns: The columns that the source's are made of.
    """

    def __init__(self, source: list[dict[str, Any]], columns: list[dict[str, Any]]) -> None:
        self.source = [entry for entry in source if entry.get("columns")]
        named = [entry for entry in with_numbers(self.source, columns) if entry["role"] != "several"]
        self.roles = {str(entry["name"]): str(entry["role"]) for entry in named}
        self.columns = columns
        self._waiting: list[NDArray[np.float64]] = []
        self._candidates: Constraints | None = None
        self._stated: list[Constraint] = []
        self._held: list[bool] = []
        self._lost: list[int] = []
        self._filled: set[str] = set()
        self._keys: dict[str, list[NDArray[np.float64]]] = {}
        self.rows = 0

    def add(self, x: NDArray[np.float64]) -> None:
        """Note more rows, `[n, columns]`."""
        self.rows += len(x)
        if self._candidates is None:
            self._waiting.append(x)
            if self.rows < SAMPLE:
                return
            self._look()
        else:
            self._check(x)

    def proposed(self) -> tuple[tuple[Constraint, ...], list[str]]:
        """The constraints that all rows obey, and what to say of those that gaps forbid."""
        if self._candidates is None:
            self._look()
        kept, said = [], []
        for place, stated in enumerate(self._stated):
            if not self._held[place]:
                continue
            assert self._candidates is not None
            why = f"holds in all {self.rows} rows; {stated.why}"
            rule = self._candidates.rules[place]
            if rule.kind == "order":
                kept.append(replace(stated, why=why, by="redraw" if self._lost[place] else ""))
            elif self._lost[place] <= MOST_LOST * self.rows:
                gaps = tuple(name for name in rule.names if name in self._filled)
                kept.append(replace(stated, why=why, gaps=gaps))
            else:
                said.append(
                    f"{rule.text} wherever all are known, but {self._lost[place]} rows have gaps from which it could "
                    "not be kept: state it under `constraints` in the card if it is wanted all the same"
                )
        said += [
            f"no two rows have the same {name!r}, as would not be by chance: state `- {{unique: [{name}]}}` "
            "under `constraints` in the card if no two drawn rows shall (there can then be no more rows than values)"
            for name, parts in self._keys.items() if _unique_by_nature(np.concatenate(parts))
        ]  # fmt: skip
        return tuple(kept), said

    def _check(self, x: NDArray[np.float64]) -> None:
        found = self._candidates
        assert found is not None
        if self._keys:
            for name, cells in Constraints([], self.source, self.columns).values(x, list(self._keys)).items():
                self._keys[name].append(cells)
        values = found.involved(x)
        for place, held in found.holds(values).items():
            rule = found.rules[place]
            if rule.kind == "combination":
                self._held[place] &= self._determined(place, values)
            else:
                self._held[place] &= bool(held.all())
        deduced = found.deduced(values)
        self._filled |= {name for name, value in deduced.items() if (np.isnan(values[name]) & ~np.isnan(value)).any()}
        for place, rule in enumerate(found.rules):
            first, *others = (np.isnan(deduced[name]) for name in rule.names)
            other = np.any(others, axis=0)
            self._lost[place] += int((~first & other if rule.kind != "order" else first & ~other).sum())
            if rule.kind == "combination":
                self._lost[place] += int((first & ~np.all(others, axis=0)).sum())

    def _determined(self, place: int, values: Mapping[str, NDArray[np.float64]]) -> bool:
        """Whether the first column of a combination still determines the others."""
        assert self._candidates is not None
        self._candidates.learn(dict(values), np.ones(len(next(iter(values.values()))), np.bool_))
        tuples = self._candidates.occurring[str(place)]
        return len({row[0] for row in tuples}) == len(tuples)

    # The search

    def _look(self) -> None:
        x = np.concatenate(self._waiting) if self._waiting else np.empty((0, len(self.columns)))
        self._waiting = []
        if len(x) >= FEWEST:
            self._stated = list(self._found(x))
        rules = [{"rule": s.rule, "combination": list(s.combination)} for s in self._stated]
        self._candidates = Constraints(rules, self.source, self.columns)
        self._held, self._lost = [True] * len(rules), [0] * len(rules)
        if len(x) >= FEWEST:
            self._keys = {name: [] for name in self._without_repetition(x)}
        if rules or self._keys:
            self._check(x)

    def _without_repetition(self, x: NDArray[np.float64]) -> list[str]:
        """Dates and whole numbers of which no two rows have the same."""
        plain = Constraints([], self.source, self.columns)
        names = [
            n for n, role in self.roles.items() if role == "datetime" or (role == "number" and plain.decimals(n) == 0)
        ]
        values = plain.values(x, names)
        return [name for name in names if _unique_by_nature(values[name])][:MOST_KEYS]

    def _found(self, x: NDArray[np.float64]) -> Iterator[Constraint]:
        plain = Constraints([], self.source, self.columns)
        sample = x[np.random.default_rng(0).permutation(len(x))]
        roles, values = self.roles, plain.values(sample, list(self.roles))
        numbers = [n for n, role in roles.items() if role == "number" and _varies(values[n])][:MOST_NUMBERS]
        moments = [n for n, role in roles.items() if role == "datetime" and _varies(values[n])]
        computed = [*self._spans(values, moments, numbers), *self._sums(plain, values, numbers)]
        targets: dict[str, Constraint] = {}
        groups: list[set[str]] = []
        for stated, names in computed:
            if names[0] not in targets and not _circular(names, targets, groups):
                targets[names[0]] = stated
                groups.append(set(names))
                yield stated
        copies = {name for name, stated in targets.items() if not {"+", "-", "*"} & set(stated.rule.split())}
        counted = [n for n in numbers if n not in copies]
        whole = {n for n in counted if plain.decimals(n) == 0}
        for alike in (moments, [n for n, role in roles.items() if role == "duration"]):
            yield from _orders(values, alike, [])
        for alike in ([n for n in counted if n in whole], [n for n in counted if n not in whole]):
            yield from _orders(values, alike, groups)
        categories = [n for n, role in roles.items() if role == "category"]
        free = [n for n in numbers if n not in targets and not any(n in group for group in groups)]
        yield from _combinations(values, categories, [n for n in free if len(np.unique(values[n])) <= MOST_CODES])

    def _spans(
        self, values: Mapping[str, NDArray[np.float64]], moments: list[str], numbers: list[str]
    ) -> Iterator[tuple[Constraint, tuple[str, ...]]]:
        """Numbers that count the time between two dates."""
        for low, high in itertools.permutations(moments, 2):
            between = (values[high] - values[low])[:FIRST]
            for name, unit in itertools.product(numbers, SPAN_UNITS):
                off = np.abs(values[name][:FIRST] * SPANS[unit] - between)
                if np.isnan(off).all() or np.nanmax(off) > SPANS[unit]:
                    continue
                told = "" if unit == "days" else f" in {unit}"
                text = f"{written_name(name)} = {written_name(high)} - {written_name(low)}{told}"
                yield from self._if_kept(text, (name, high, low), values, len(moments) ** 2 * len(numbers) + 1)

    def _sums(
        self, plain: Constraints, values: Mapping[str, NDArray[np.float64]], numbers: list[str]
    ) -> Iterator[tuple[Constraint, tuple[str, ...]]]:
        """Numbers that are another, or the sum, difference or product of two others, or the sum of more."""
        if len(numbers) < 2:
            return
        tried = len(numbers) ** 3
        table = np.stack([plain.settled(name, values[name]) for name in numbers])
        known = ~np.isnan(table)
        first = np.argsort(~known.all(0), kind="stable")[:FIRST]
        head, scale = table[:, first], 1e-6 + 1e-9 * np.nanmax(np.abs(np.where(known, table, 0.0)), axis=1)[:, None]
        loose = scale + np.array([0.51 * 10.0 ** -(d if (d := plain.decimals(n)) is not None else 12) for n in numbers])[:, None]  # fmt: skip  # noqa: E501
        for a, b in itertools.combinations(range(len(numbers)), 2):
            for sign, made in (("+", head[a] + head[b]), ("*", head[a] * head[b])):
                with np.errstate(invalid="ignore"):
                    fits = ((np.abs(head - made) <= loose) | np.isnan(head) | np.isnan(made)).all(1)
                fits[[a, b]] = False
                for t in np.flatnonzero(fits & known.any(1)).tolist():
                    text, names = _sum_text(numbers, t, a, b) if sign == "+" else _product_text(numbers, t, a, b)
                    yield from self._if_kept(text, names, values, tried)
        copies: set[int] = set()
        for a, b in itertools.combinations(range(len(numbers)), 2):
            with np.errstate(invalid="ignore"):
                same = ((np.abs(head[a] - head[b]) <= scale[b]) | np.isnan(head[a] - head[b])).all()
            if same:
                text = f"{written_name(numbers[b])} = {written_name(numbers[a])}"
                yield from self._if_kept(text, (numbers[b], numbers[a]), values, tried)
                copies.add(b)
        kept = [i for i in range(len(numbers)) if i not in copies]
        yield from self._long_sums(table[kept], [numbers[i] for i in kept], values)

    def _long_sums(
        self, table: NDArray[np.float64], numbers: list[str], values: Mapping[str, NDArray[np.float64]]
    ) -> Iterator[tuple[Constraint, tuple[str, ...]]]:
        """Sums of three and more, by least squares whose coefficients come out as 1, -1 and 0."""
        rows = table[:, ~np.isnan(table).any(0)]
        if not 4 <= len(numbers) <= 60 or rows.shape[1] < max(FEWEST, 3 * len(numbers)):
            return
        rows = rows[:, : 8 * len(numbers)]
        for t in range(len(numbers) - 1, -1, -1):
            others = [i for i in range(len(numbers)) if i != t]
            spread = rows[others].std(1) + 1e-12
            found = np.linalg.lstsq((rows[others] / spread[:, None]).T, rows[t], rcond=None)[0] / spread
            whole = np.round(found)
            terms = [(i, int(c)) for i, c in zip(others, whole, strict=True) if c]
            if len(terms) < 3 or np.abs(found - whole).max() > 1e-3 or np.abs(whole).max() > 1:
                continue
            terms.sort(key=lambda term: (-term[1], term[0]))
            if terms[0][1] < 0:
                continue
            text = f"{written_name(numbers[t])} = {written_name(numbers[terms[0][0]])}"
            text += "".join(f" {'+' if c > 0 else '-'} {written_name(numbers[i])}" for i, c in terms[1:])
            names = (numbers[t], *(numbers[i] for i, _ in terms))
            yield from self._if_kept(text, names, values, len(numbers) ** 3)

    def _if_kept(
        self, text: str, names: tuple[str, ...], values: Mapping[str, NDArray[np.float64]], tried: int
    ) -> Iterator[tuple[Constraint, tuple[str, ...]]]:
        """A rule with its reason, if the sample keeps it and would not by chance."""
        rule = Constraints([{"rule": text}], self.source, self.columns)
        named = {name: values[name] for name in names}
        known = ~np.isnan(np.stack(list(named.values()))).any(0)
        if known.sum() < FEWEST:
            return
        named = {name: value[known] for name, value in named.items()}
        if not rule.holds(named)[0].all():
            return
        mixed = {**named, names[0]: np.roll(named[names[0]], 1 + known.sum() // 3)}
        share = float(rule.holds(mixed)[0].mean())
        if share <= 0.5 and int(known.sum()) * math.log(share + 1 / known.sum()) < CHANCE - math.log(tried):
            yield Constraint(rule=text, why=f"of rows mixed at random {share:.0%} do"), names


def _unique_by_nature(values: NDArray[np.float64]) -> bool:
    """Whether all values differ, and would not if each were drawn by itself from their range."""
    ordered = np.sort(values[~np.isnan(values)])
    steps = np.diff(ordered)
    if len(ordered) < FEWEST or not steps.all():
        return False
    room = (ordered[-1] - ordered[0]) / np.gcd.reduce(steps.astype(np.int64)) + 1
    return float(np.log1p(-np.arange(len(ordered)) / max(room, len(ordered))).sum()) < CHANCE


def _varies(values: NDArray[np.float64]) -> bool:
    known = values[~np.isnan(values)]
    return len(known) >= FEWEST and bool((known != known[0]).any())


def _sum_text(numbers: list[str], t: int, a: int, b: int) -> tuple[str, tuple[str, ...]]:
    """`t = a + b` with the column that comes last on the left."""
    last = max(t, a, b)
    one, other = (written_name(numbers[i]) for i in (a, b))
    total = written_name(numbers[t])
    if last == t:
        return f"{total} = {one} + {other}", (numbers[t], numbers[a], numbers[b])
    rest = a if last == b else b
    text = f"{written_name(numbers[last])} = {total} - {written_name(numbers[rest])}"
    return text, (numbers[last], numbers[t], numbers[rest])


def _product_text(numbers: list[str], t: int, a: int, b: int) -> tuple[str, tuple[str, ...]]:
    text = f"{written_name(numbers[t])} = {written_name(numbers[a])} * {written_name(numbers[b])}"
    return text, (numbers[t], numbers[a], numbers[b])


def _circular(names: tuple[str, ...], targets: Mapping[str, Constraint], groups: list[set[str]]) -> bool:
    """Whether a computed column is among those that an earlier rule computes another of, or says the same again."""
    return any(len(set(names) & group) >= min(3, len(names), len(group)) for group in groups) or any(
        names[0] in group - set(targets) and targets.keys() & set(names[1:]) & group for group in groups
    )


def _orders(
    values: Mapping[str, NDArray[np.float64]], names: list[str], groups: list[set[str]]
) -> Iterator[Constraint]:
    """Which columns are never above which, without those that follow from others or from the sums of `groups`."""
    found: dict[tuple[str, str], tuple[bool, float]] = {}
    random = np.random.default_rng(1)
    for low, high in itertools.permutations(names, 2):
        known = ~(np.isnan(values[low]) | np.isnan(values[high]))
        if known.sum() < FEWEST or any({low, high} <= group for group in groups):
            continue
        a, b = values[low][known], values[high][known]
        if not (a <= b).all() or (a == b).all():
            continue
        share = float(np.mean([(a <= random.permutation(b)).mean() for _ in range(4)]))
        chance = len(a) * math.log(max(share, 1e-9))
        if share <= MOST_BY_CHANCE and chance < CHANCE - 2 * math.log(len(names)):
            found[low, high] = (bool((a < b).all()), share)
    for (low, high), (strict, share) in found.items():
        if any((low, middle) in found and (middle, high) in found for middle in names):
            continue
        sign = "<" if strict else "<="
        text = f"{written_name(low)} {sign} {written_name(high)}"
        yield Constraint(rule=text, why=f"of rows mixed at random {share:.0%} do")


def _combinations(
    values: Mapping[str, NDArray[np.float64]], names: list[str], numbers: list[str]
) -> Iterator[Constraint]:
    """Categories that determine others, or numbers that have few values."""
    determined: dict[str, list[tuple[str, float]]] = {}
    for one, other in itertools.chain(itertools.permutations(names, 2), itertools.product(names, numbers)):
        known = ~(np.isnan(values[one]) | np.isnan(values[other]))
        if known.sum() < FEWEST:
            continue
        a = values[one][known].astype(np.int64)
        b = np.unique(values[other][known], return_inverse=True)[1]
        pairs = len(np.unique(a * (int(b.max()) + 1) + b))
        sizes, shares = np.bincount(a), np.bincount(b) / len(b)
        sizes, shares = sizes[sizes > 0], shares[shares > 0]
        if pairs != len(sizes) or len(shares) < 2:
            continue
        chance = float(sum(math.log((shares**size).sum() + 1e-300) for size in sizes.tolist()))
        if chance < CHANCE - 2 * math.log(len(names) + len(numbers)):
            determined.setdefault(one, []).append((other, chance))
    taken: set[str] = set()
    for one, others in sorted(determined.items(), key=lambda item: -len(item[1])):
        free = [other for other, _ in others if other not in taken]
        if one in taken or not free:
            continue
        taken |= {one, *free}
        yield Constraint(combination=(one, *free), why=f"{one} determines {', '.join(free)}")
