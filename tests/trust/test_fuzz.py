"""The fuzzer: a few of its inputs, the same at every call; and that it notices."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from benchmarks.fuzz.__main__ import attempt, finding
from benchmarks.fuzz.kinds import KINDS


@pytest.mark.parametrize("name", KINDS)
def test_whatever_is_not_read_is_refused_by_a_sentence(name: str, tmp_path: Path) -> None:
    kind = KINDS[name](tmp_path / name)
    for good in kind.seeds:
        kind.read(good if name != "requests" else (json.dumps(good).encode(), "application/json"))
    made = [[kind.make(random.Random(number)) for number in range(10)] for _ in range(2)]
    assert made[0] == made[1]
    errors = [attempt(kind, 0, number) for number in range(10 if name == "tables" else 30)]
    assert [text for error in errors if error and (text := finding(error))] == []
    assert any(errors)


def test_what_a_library_raises_is_a_finding(tmp_path: Path) -> None:
    class Careless(KINDS["cards"]):
        def read(self, made: bytes) -> None:
            json.loads(made)

    kind = Careless(tmp_path / "x")
    told = [finding(error) for number in range(8) if (error := attempt(kind, 0, number))]
    assert all(told)
    assert any(str(text).startswith("JSONDecodeError at tests/trust/test_fuzz.py") for text in told)
