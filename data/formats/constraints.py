"""What every row of a table obeys: `a <= b`, `total = x + y`, combinations that occur, unique keys.

Between the columns that a table has (its full columns: numbers, categories, the parts of dates) and those that a model
learns stand reversible transforms, so that whatever a model draws obeys:

| stated | learned | computed |
| --- | --- | --- |
| `low <= high` | low, and the gap `high - low` | high |
| `total = x + y`, `x - y`, `x * y` | x, y | total, with its decimals |
| a combination of categories | which one it is, one category | each |

What has no such form (unique keys, `by: redraw`) is checked, and drawn again by whoever draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import MICRO, SPANS, SourceColumns, Values, month_starts, months_of
from .parts import DAY
from .rules import Rule, parse_rule

EXACT = 1e-6
ALMOST = 1e-9


class Constraints(SourceColumns):
    """The rules of a table, and the transforms that keep them.

    Arguments:
        stated: Entries of a card's `constraints`.
        source: The manifest's `table`; `columns` of its entries are places among the full columns.
        columns: The full columns: `name`, `type`, `dtype`, `categories`.
        occurring: Of each combination its members' codes, by place of its rule; grown by `learn`.

    Attributes:
        learned: The columns that a model learns, as the manifest's domain lists them.
    Raises:
        ValueError: If a rule does not fit its columns, or rules compute one another in a circle.
    """

    def __init__(
        self,
        stated: Sequence[Mapping[str, Any]],
        source: Sequence[Mapping[str, Any]],
        columns: Sequence[Mapping[str, Any]],
        occurring: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(source, columns)
        self.rules = [parse_rule(entry, self.source) for entry in stated]
        self.occurring: dict[str, list[list[float]]] = {k: [list(t) for t in v] for k, v in (occurring or {}).items()}
        for rule in self.rules:
            self._check_types(rule)
        self._lows: dict[str, list[Rule]] = {}
        self._made: dict[str, Rule] = {}
        self._member: dict[str, int] = {}
        self.order: list[str] = []
        self._assign()
        self.veiled = list(dict.fromkeys(name for rule in self.rules for name in rule.gaps))
        self._combined: dict[int, dict[str, Any]] = {}
        self.learned, self._places = self._columns_learned()
        self._codes: dict[int, dict[tuple[float, ...], int]] = {
            int(k): {tuple(t): code for code, t in enumerate(v)} for k, v in self.occurring.items()
        }

    # What the rules make of the columns

    def _check_types(self, rule: Rule) -> None:
        roles = [self.role(name) for name in rule.names]
        for name, role in zip(rule.names, roles, strict=True):
            if not role and not (rule.kind == "unique" and self.source[name]["role"] == "identifier"):
                what = self.source[name]["role"]
                raise ValueError(f"{rule.text}: {name!r} is not among the columns that are learned (it is {what})")
        times = [role in ("datetime", "duration") for role in roles]
        if rule.kind == "combination" and not set(roles) <= {"category", "number"}:
            raise ValueError(f"{rule.text}: all must be categorical or numbers, got {', '.join(roles)}")
        if rule.kind == "order" and ("category" in roles or len(set(roles)) > 1):
            raise ValueError(f"{rule.text}: both must be numbers, dates or durations, got {' and '.join(roles)}")
        if rule.kind == "product" and set(roles) != {"number"}:
            raise ValueError(f"{rule.text}: all must be numbers, got {', '.join(roles)}")
        if rule.kind == "sum" and any(times):
            between = roles[1:] == ["datetime"] * 2 and rule.signs == (1, -1) and roles[0] in ("number", "duration")
            if not between and set(roles) != {"duration"}:
                raise ValueError(f"{rule.text}: of dates only the difference is taken, and it is a number or duration")
        elif rule.kind == "sum" and set(roles) != {"number"}:
            raise ValueError(f"{rule.text}: all must be numbers, got {', '.join(roles)}")

    def _assign(self) -> None:
        """Which columns are computed, and of what; an order whose high column is taken is left to drawing again."""
        for place, rule in enumerate(self.rules):
            if rule.kind == "combination" and not rule.redraw:
                for name in rule.names:
                    if name in self._member:
                        raise ValueError(f"{rule.text}: {name!r} is in another combination already. Make them one.")
                    self._member[name] = place
            if rule.kind in ("sum", "product"):
                if rule.names[0] in self._made:
                    raise ValueError(f"{rule.text}: {rule.names[0]!r} is computed by another rule already")
                self._made[rule.names[0]] = rule
        for rule in self.rules:
            if rule.kind == "order" and not rule.redraw and self._constructible(rule):
                self._lows.setdefault(rule.names[1], []).append(rule)
                if not self._sorted():  # it would be computed of itself
                    self._lows[rule.names[1]].remove(rule)
        self._lows = {high: rules for high, rules in self._lows.items() if rules}
        found = self._sorted()
        if found is None:
            listed = ", ".join(rule.text for rule in self._made.values())
            raise ValueError(f"the rules compute one another in a circle: {listed}. Take one out.")
        self.order = found

    def _constructible(self, rule: Rule) -> bool:
        low, high = rule.names
        zones = [part for name in (low, high) for part in self.parts(name) if part.name == "offset"]
        return high not in self._made and len(zones) in (0, 2) and len(set(zones)) < 2 and not (
            zones and zones[0].learned
        )  # fmt: skip

    def made_of(self, name: str) -> list[str]:
        """The columns that a computed one is made of."""
        if name in self._made:
            return list(self._made[name].names[1:])
        return [rule.names[0] for rule in self._lows.get(name, ())]

    def is_made(self, name: str) -> bool:
        """Whether a column is a sum or product of others."""
        return name in self._made

    def _sorted(self) -> list[str] | None:
        """The computed columns, each after those it is made of; `None` where they go in a circle."""
        left, found = {*self._made, *(k for k, v in self._lows.items() if v)}, []
        while left:
            ready = [name for name in self.source if name in left and not left.intersection(self.made_of(name))]
            if not ready:
                return None
            found += ready
            left -= set(ready)
        return found

    def _columns_learned(self) -> tuple[list[dict[str, Any]], list[tuple[str, Any]]]:
        """Columns of the domain, and what each is: a full column, a gap or a combination."""
        learned: list[dict[str, Any]] = []
        places: list[tuple[str, Any]] = []
        taken = {str(column["name"]) for column in self.columns} | set(self.source)

        def add(column: dict[str, Any], kind: str, what: Any) -> None:
            learned.append(column)
            places.append((kind, what))

        for name, entry in self.source.items():
            if name in self.veiled:
                gap = {"name": _fresh(f"{name} missing", taken), "type": "categorical", "dtype": "string"}
                add({**gap, "categories": ["no", "yes"]}, "veil", name)
            if name in self._made:
                continue
            if name in self._lows:
                whole = self._gap_unit(name) is not None or all(
                    self.column(n)["type"] == "integer" for n in (name, *self.made_of(name))
                )
                label = f"{name} - {self.made_of(name)[0]}" if len(self.made_of(name)) == 1 else f"{name} - highest"
                kind = ("integer", "int64") if whole else ("continuous", "float64")
                label = _fresh(label, taken)
                add({"name": label, "type": kind[0], "dtype": kind[1], "categories": []}, "gap", name)
            elif name in self._member:
                place = self._member[name]
                rule = self.rules[place]
                if name != next(n for n in self.source if n in rule.names):
                    continue
                tuples = self.occurring.setdefault(str(place), [])
                texts = [self._tuple_text(rule, codes) for codes in tuples]
                label = _fresh(" & ".join(rule.names), taken)
                column = {"name": label, "type": "categorical", "dtype": "string", "categories": texts}
                self._combined[place] = column
                add(column, "tuple", place)
            else:
                for index in entry.get("columns", ()):
                    add(self.columns[index], "full", index)
        return learned, places

    def _tuple_text(self, rule: Rule, members: Sequence[float]) -> str:
        columns = [self.column(name) for name in rule.names]
        return " & ".join(
            str(column["categories"][int(value)]) if column["type"] == "categorical" else f"{value:g}"
            for column, value in zip(columns, members, strict=True)
        )

    @cached_property
    def kept_how(self) -> list[str]:
        """How each rule is kept, in words."""
        said = []
        for place, rule in enumerate(self.rules):
            if rule.kind in ("sum", "product"):
                said.append(f"{rule.names[0]!r} is not learned but computed")
            elif rule.kind == "order" and rule in self._lows.get(rule.names[1], ()):
                said.append(f"learned is how far {rule.names[1]!r} is above {rule.names[0]!r}")
            elif rule.kind == "combination" and self._member.get(rule.names[0]) == place:
                said.append("they are learned as one category")
            else:
                said.append("rows that break it are drawn again")
        return said

    def involved(self, full: NDArray[np.float64]) -> Values:
        """The columns that the rules are about, by name.

        Arguments:
            full: Rows of the full columns, `[n, full]`.
        """
        named = {name for rule in self.rules for name in rule.names}
        return self.values(full, [name for name in self.source if name in named and self.role(name)])

    # Gaps

    def _gap_unit(self, high: str) -> int | str | None:
        """Microseconds that a gap below `high` counts, `month`, or `None` for numbers."""
        names = [high, *self.made_of(high)]
        if self.role(high) == "number":
            return None
        monthly = [{p.name for p in self.parts(n)} & {"month", "month_end", "quarter"} for n in names]
        if all(monthly) and not any(p.name == "clock" for n in names for p in self.parts(n)):
            return "month"
        steps = [p.step for n in names for p in self.parts(n) if p.name in ("clock", "duration")]
        return max(math.gcd(DAY, *steps) // MICRO, 1) if self.role(high) != "duration" else max(
            math.gcd(*steps) // MICRO, 1
        )  # fmt: skip

    def _floor(self, high: str, values: Values) -> NDArray[np.float64]:
        """The least that `high` may be, `[n]`."""
        unit = self._gap_unit(high)
        floors = []
        for rule in self._lows[high]:
            low = self.settled(rule.names[0], values[rule.names[0]])
            if not rule.strict:
                floors.append(low)
            elif unit is None:
                decimals = self.decimals(high)
                floors.append(low + (10.0**-decimals if decimals is not None else 0.0))
            else:
                floors.append(_later(low, np.ones(len(low)), unit))
        stacked = np.stack(floors)
        known = ~np.isnan(stacked).all(0)
        return np.where(known, np.max(np.where(np.isnan(stacked), -math.inf, stacked), axis=0), math.nan)

    def _gap(self, high: str, values: Values) -> NDArray[np.float64]:
        unit, floor = self._gap_unit(high), self._floor(high, values)
        if unit == "month":
            return months_of(values[high]) - months_of(floor)
        gap = values[high] - floor
        if unit is not None:
            return np.floor(gap / float(unit))
        finest = [self.decimals(name) for name in (high, *self.made_of(high))]
        return gap if None in finest else np.round(gap, max(d for d in finest if d is not None)) + 0.0

    def _above(self, high: str, gap: NDArray[np.float64], values: Values) -> NDArray[np.float64]:
        unit, floor = self._gap_unit(high), self._floor(high, values)
        gap = np.maximum(gap, 0.0)
        if unit is not None:
            return _later(floor, np.round(gap), unit)
        return self.settled(high, floor + gap)

    # Sums and products

    def _spans(self, rule: Rule) -> bool:
        return self.role(rule.names[-1]) == "datetime"

    def _computed(self, rule: Rule, values: Values) -> NDArray[np.float64]:
        terms = [self.settled(name, values[name]) for name in rule.names[1:]]
        if rule.kind == "product":
            return np.prod(np.stack(terms), axis=0)
        total = np.sum([sign * term for sign, term in zip(rule.signs, terms, strict=True)], axis=0)
        if self._spans(rule) and self.role(rule.names[0]) == "number":
            return total / SPANS[rule.unit]
        return total

    def _tolerance(self, rule: Rule, computed: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far the target may be from what is computed: by its rounding."""
        near = ALMOST * np.maximum(1.0, np.abs(computed))
        target = rule.names[0]
        if self.role(target) != "number":
            return near
        written = self.decimals(target)
        if written is None:
            return near
        finer = [9 if d is None else d for d in (self._term_decimals(rule, n) for n in rule.names[1:])]
        exact = (sum(finer) if rule.kind == "product" else max(finer)) <= written
        return near + 10.0**-written * (EXACT if exact else 0.5)

    def _term_decimals(self, rule: Rule, name: str) -> int | None:
        if self._spans(rule):
            return 9 if rule.unit != "days" or any(p.name == "clock" for p in self.parts(name)) else 0
        return self.decimals(name) if self.role(name) == "number" else 9

    def _solved(self, rule: Rule, name: str, values: Values) -> NDArray[np.float64]:
        """What a term must be for the rule to hold."""
        others = [n for n in rule.names[1:] if n != name]
        target = values[rule.names[0]]
        with np.errstate(divide="ignore", invalid="ignore"):
            if rule.kind == "product":
                rest = np.prod(np.stack([values[n] for n in others]), axis=0) if others else np.ones(len(target))
                found = target / rest
            else:
                if self._spans(rule) and self.role(rule.names[0]) == "number":
                    target = target * SPANS[rule.unit]
                sign = dict(zip(rule.names[1:], rule.signs, strict=True))
                found = (target - np.sum([sign[n] * values[n] for n in others], axis=0)) * sign[name]
        return self.settled(name, np.where(np.isfinite(found), found, math.nan))

    # Rows

    def holds(self, values: Values) -> dict[int, NDArray[np.bool_]]:
        """Of each rule by its place, but unique ones, in which rows it holds or cannot be told, `[n]`."""
        checked = [(place, rule) for place, rule in enumerate(self.rules) if rule.kind != "unique"]
        return {place: self._holds(rule, values, place) for place, rule in checked}

    def _holds(self, rule: Rule, values: Values, place: int) -> NDArray[np.bool_]:
        known = ~np.isnan(np.stack([values[name] for name in rule.names])).any(0)
        with np.errstate(invalid="ignore"):
            if rule.kind == "order":
                low, high = (values[name] for name in rule.names)
                return ~known | (low < high if rule.strict else low <= high)
            if rule.kind == "combination":
                return ~known | ~np.isnan(self._tuples_of(place, values))
            computed = self._computed(rule, values)
            return ~known | (np.abs(values[rule.names[0]] - computed) <= self._tolerance(rule, computed))

    def learn(self, values: Values, keep: NDArray[np.bool_]) -> None:
        """Note the combinations that occur in the rows to keep."""
        for place, rule in enumerate(self.rules):
            if rule.kind != "combination":
                continue
            codes = np.stack([values[name] for name in rule.names], axis=1)[keep]
            known = codes[~np.isnan(codes).any(1)]
            seen, listed = self._codes.setdefault(place, {}), self.occurring.setdefault(str(place), [])
            for row in np.unique(known, axis=0).tolist():
                if tuple(row) not in seen:
                    seen[tuple(row)] = len(listed)
                    listed.append(row)
                    if place in self._combined:
                        self._combined[place]["categories"].append(self._tuple_text(rule, row))

    def _tuples_of(self, place: int, values: Values) -> NDArray[np.float64]:
        """Which combination each row has, NaN for none that occurs, `[n]`."""
        members = np.stack([values[name] for name in self.rules[place].names], axis=1)
        found = np.full(len(members), math.nan)
        known = ~np.isnan(members).any(1)
        distinct, inverse = np.unique(members[known], axis=0, return_inverse=True)
        codes = self._codes.get(place, {})
        place_of = [codes.get(tuple(row), math.nan) for row in distinct.tolist()]
        found[known] = np.array(place_of, np.float64)[inverse.reshape(-1)]
        return found

    def deduced(self, values: Values) -> Values:
        """The same with the cells that the rules and the others leave no choice."""
        values = {name: value.copy() for name, value in values.items()}
        for _ in range(len(self.rules) + 1):
            before = sum(int(np.isnan(value).sum()) for value in values.values())
            for place, rule in enumerate(self.rules):
                if rule.kind in ("sum", "product"):
                    self._deduce(rule, values)
                elif rule.kind == "combination":
                    self._deduce_tuple(place, rule, values)
            if sum(int(np.isnan(value).sum()) for value in values.values()) == before:
                break
        return values

    def _deduce(self, rule: Rule, values: Values) -> None:
        missing = np.isnan(np.stack([values[name] for name in rule.names]))
        one = missing.sum(0) == 1
        target = rule.names[0]
        rows = one & missing[0]
        values[target] = np.where(rows, self.settled(target, self._computed(rule, values)), values[target])
        for index, name in enumerate(rule.names[1:], 1):
            rows = one & missing[index]
            if rows.any():
                tried = {**values, name: np.where(rows, self._solved(rule, name, values), values[name])}
                values[name] = np.where(rows & self._holds(rule, tried, -1), tried[name], values[name])

    def _deduce_tuple(self, place: int, rule: Rule, values: Values) -> None:
        tuples = np.array(self.occurring.get(str(place), []), np.float64).reshape(-1, len(rule.names))
        codes = np.stack([values[name] for name in rule.names], axis=1)
        partly = np.isnan(codes).any(1) & ~np.isnan(codes).all(1)
        for row in np.unique(codes[partly], axis=0) if partly.any() else []:
            fitting = tuples[((tuples == row) | np.isnan(row)).all(1)]
            same = partly & ((codes == row) | (np.isnan(codes) & np.isnan(row))).all(1)
            settled = np.where((fitting == fitting[:1]).all(0), fitting[0], row) if len(fitting) else row
            for index, name in enumerate(rule.names):
                values[name][same] = settled[index]

    def forward(self, full: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a model learns of rows, `[n, learned]`, cells that no choice is left for filled in.

        Arguments:
            full: Rows of the full columns, `[n, full]`, NaN where missing.
        """
        given = self.involved(full)
        values = self.deduced(given)
        full = full.copy()
        for name, value in values.items():
            if (np.isnan(given[name]) & ~np.isnan(value)).any():
                self.write(name, value, full)
        out, told = np.empty((len(full), len(self.learned))), self._told_gaps(values)
        for index, (kind, what) in enumerate(self._places):
            if kind == "full":
                out[:, index] = full[:, what]
            elif kind == "gap":
                gap = self._gap(what, values)
                out[:, index] = np.where(np.isnan(gap), told.get(what, gap), gap)
            elif kind == "veil":
                out[:, index] = np.isnan(given[what]) & ~np.isnan(values[what])
            else:
                out[:, index] = self._tuples_of(what, values)
        return out

    def inverse(
        self,
        x: NDArray[np.float64],
        given: Values | None = None,
        seed: int = 0,
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Rows of the full columns, and which of them obey every rule.

        Arguments:
            x: What a model drew, `[n, learned]`, NaN where missing.
            given: Columns of the source of which some cells are known (not NaN): they stay as they are, and the others
                are made to fit, none of them missing.
            seed: Selects among combinations that fit what is given.
        """
        full = np.full((len(x), len(self.columns)), math.nan)
        gaps: dict[str, NDArray[np.float64]] = {}
        for index, (kind, what) in enumerate(self._places):
            if kind == "full":
                full[:, what] = x[:, index]
            elif kind == "gap":
                gaps[what] = x[:, index]
            elif kind == "tuple":
                self._split(what, x[:, index], full, given, seed)
        values = self.involved(full)
        given = self.deduced(given) if given else {}
        told = {name: ~np.isnan(given[name]) if name in given else np.zeros(len(x), np.bool_) for name in values}
        for name, rows in told.items():
            values[name] = np.where(rows, given.get(name, math.nan), self.settled(name, values[name]))
        for high, gap in self._told_gaps(given).items():
            gaps[high] = np.where(np.isnan(gap), gaps[high], gap)
        self._compute(values, gaps, told)
        if given:
            self._backwards(values, gaps, told)
        obeys = np.ones(len(x), np.bool_)
        for name, value in values.items():
            if name in self.order or name in given or self.role(name) == "number":
                obeys &= ~self.write(name, value, full)
        for held in self.holds(self.involved(full)).values():
            obeys &= held
        if not given:
            for index, (kind, what) in enumerate(self._places):
                if kind == "veil":
                    full[np.ix_(x[:, index] == 1, self.source[what]["columns"])] = math.nan
        return full, obeys

    def _compute(
        self, values: Values, gaps: Mapping[str, NDArray[np.float64]], told: Mapping[str, NDArray[np.bool_]]
    ) -> None:
        """Put in the computed columns, but for the cells that are told."""
        for name in self.order:
            made = self._made.get(name)
            value = self.settled(name, self._computed(made, values)) if made else self._above(name, gaps[name], values)
            values[name] = np.where(told[name], values[name], value)

    def _backwards(
        self, values: Values, gaps: Mapping[str, NDArray[np.float64]], told: dict[str, NDArray[np.bool_]]
    ) -> None:
        """Where a computed column is told but not all it is computed of: the rest follows from it."""
        last_first = self.order[::-1]
        for name in sorted(last_first, key=self._made.__contains__):
            made, rows = self._made.get(name), told[name].copy()
            terms = self.made_of(name)
            last_terms = terms[::-1]
            for term in sorted(last_terms, key=self.order.__contains__):
                here = rows & ~told[term]
                if not here.any():
                    continue
                if made:
                    found = self._solved(made, term, values)
                    here &= ~np.isnan(found)
                    values[term] = np.where(here, found, values[term])
                    rows &= ~here  # one term is enough
                else:
                    below = self._below(name, gaps[name], values[name])
                    lower = below if len(terms) == 1 else np.fmin(below, values[term])
                    values[term] = np.where(here, lower, values[term])
                told[term] = told[term] | here
                self._compute(values, gaps, told)

    def _told_gaps(self, values: Mapping[str, NDArray[np.float64]]) -> Values:
        """The gaps that a number or duration states by itself: how far one date is above another."""
        found: Values = {}
        for name, rule in self._made.items():
            high, low = rule.names[1], rule.names[-1]
            lows = self._lows.get(high, [])
            if name not in values or not self._spans(rule) or [r.names[0] for r in lows] != [low]:
                continue
            unit = self._gap_unit(high)
            if isinstance(unit, int):
                span = values[name] * (SPANS[rule.unit] if self.role(name) == "number" else 1)
                found[high] = np.floor(span / unit) - lows[0].strict
        return found

    def _below(self, high: str, gap: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
        unit = self._gap_unit(high)
        gap = np.maximum(np.where(np.isnan(gap), 0.0, gap), 0.0)
        strict = any(rule.strict for rule in self._lows[high])
        if unit is not None:
            return _later(value, -np.round(gap) - strict, unit)
        decimals = self.decimals(high)
        return value - gap - (strict * 10.0**-decimals if decimals is not None else 0.0)

    def _split(
        self, place: int, drawn: NDArray[np.float64], full: NDArray[np.float64], given: Values | None, seed: int
    ) -> None:
        """Put a combination's members into the full columns, one that fits what is given."""
        rule = self.rules[place]
        tuples = np.array(self.occurring[str(place)], np.float64).reshape(-1, len(rule.names))
        code = drawn.copy()
        told = [given[n] if given and n in given else np.full(len(drawn), math.nan) for n in rule.names]
        members = np.stack(told, axis=1)
        partly = np.flatnonzero(~np.isnan(members).all(1))
        weights = self._combined[place].get("frequencies")
        random = np.random.default_rng((seed & (2**63 - 1), place))
        for row in partly.tolist():
            fits = ((tuples == members[row]) | np.isnan(members[row])).all(1)
            if fits.any() and not (code[row] == code[row] and fits[int(code[row])]):
                weight = fits * (np.array(weights, np.float64) + 1e-9 if weights else 1.0)
                code[row] = random.choice(len(tuples), p=weight / weight.sum())
        missing = np.isnan(code)
        if not len(tuples):
            return
        chosen = np.where(missing[:, None], math.nan, tuples[np.where(missing, 0, code).astype(np.int64)])
        for index, name in enumerate(rule.names):
            full[:, self.source[name]["columns"][0]] = chosen[:, index]

    def repeated(self, full: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which rows repeat an earlier one in columns that are unique, `[n]`."""
        again = np.zeros(len(full), np.bool_)
        for key in self.keys(full).values():
            known = np.flatnonzero(~np.isnan(key).any(1))
            _, first = np.unique(key[known], axis=0, return_index=True)
            mask = np.ones(len(known), np.bool_)
            mask[first] = False
            again[known[mask]] = True
        return again

    def keys(self, full: NDArray[np.float64]) -> dict[int, NDArray[np.float64]]:
        """Of each unique rule by its place its columns as they will be written, `[n, columns]`."""
        found = {}
        for place, rule in enumerate(self.rules):
            if rule.kind == "unique" and all(map(self.role, rule.names)):
                cells = self.values(full, rule.names)
                found[place] = np.stack([self.settled(name, cells[name]) for name in rule.names], axis=1)
        return found

    def broken(self, values: Values) -> list[str]:
        """Of each row the first rule that it breaks, empty where it breaks none."""
        said = [""] * len(next(iter(values.values()))) if values else []
        for place, held in self.holds(values).items():
            for row in np.flatnonzero(~held):
                said[row] = said[row] or self.rules[place].text
        return said


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _later(value: NDArray[np.float64], count: NDArray[np.float64], unit: int | str) -> NDArray[np.float64]:
    """Times so many units later, `[n]`."""
    if unit != "month":
        return value + count * float(unit)
    known = ~(np.isnan(value) | np.isnan(count))
    return np.where(known, month_starts(np.where(known, months_of(value) + count, 0.0)), math.nan)
