"""A source that was edited: refused by `prepare`, named and accepted by `data update`."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.cards import load_card
from data.ingest.inspect import inspect, write_card
from data.ingest.update import changes
from data.readers.base import here
from pipelines.cli.data import update
from pipelines.stages.prepare import prepare

ROWS = [f"{chr(97 + i % 5)},{chr(65 + i % 5)},{i % 7},{i * i % 11}.5" for i in range(60)]


def written(root: Path, rows: list[str]) -> None:
    (root / "rows.csv").write_text("\n".join(["small,capital,x,y", *rows]) + "\n")


def test_what_changed_is_named_and_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, ROWS)
    write_card(inspect("rows.csv", "rows", tmp_path), tmp_path)
    prepare("rows", root=tmp_path, mapper=here)
    update("rows", root=tmp_path, mapper=here)
    assert "nothing to accept" in capsys.readouterr().out
    written(tmp_path, ["e,E,6,0.5", *ROWS[1:10], "a,A,3,2.5", *ROWS[11:], "b,B,1,1.5"])
    with pytest.raises(ValueError, match="`fivefold data update rows` says what is different"):
        prepare("rows", root=tmp_path, mapper=here)
    update("rows", root=tmp_path, mapper=here)
    told = capsys.readouterr().out
    assert "61 examples now" in told
    assert "2 changed: number 1, 11\n" in told
    assert "1 added: number 61\n" in told
    assert "removed" not in told
    assert prepare("rows", root=tmp_path, mapper=here)["splits"]["train"]["count"] > 40


def test_what_prepare_would_refuse_is_not_accepted(tmp_path: Path) -> None:
    written(tmp_path, ROWS)
    card = write_card(inspect("rows.csv", "rows", tmp_path), tmp_path)
    before = card.read_text()
    written(tmp_path, [*ROWS, "a,E,1,1.5", "never,A,1,1.5"])
    with pytest.raises(ValueError, match="row 63, column 'small'"):
        update("rows", root=tmp_path, mapper=here)
    assert card.read_text() == before


def test_a_label_alone_is_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the last of several parts that are compared."""
    monkeypatch.setattr("data.ingest.update.ROWS", 7)
    written(tmp_path, ROWS)
    write_card(inspect("rows.csv", "rows", tmp_path, label="small"), tmp_path)
    prepare("rows", root=tmp_path, mapper=here)
    written(tmp_path, [*ROWS[:40], "b" + ROWS[40][1:], *ROWS[41:]])
    found = changes(load_card("rows", tmp_path), tmp_path, here)
    assert (found.changed, found.added, found.removed) == ((40,), (), ())
    written(tmp_path, ROWS[:58])
    found = changes(load_card("rows", tmp_path), tmp_path, here)
    assert (found.changed, found.added, found.removed) == ((), (), (58, 59))
