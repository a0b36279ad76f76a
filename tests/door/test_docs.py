"""The tutorial runs, and the architecture's picture shows the code as it is."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


def test_the_tutorial_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells in order, in one namespace; then what it says of its data must hold of what was computed."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "docs/tutorial.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells), "strip the outputs before committing docs/tutorial.ipynb"
    found: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"tutorial.ipynb, code cell {number}", "exec"), found)
    frame, model = found["frame"], found["model"]
    pd.testing.assert_series_equal(found["drawn"].dtypes, frame.dtypes)
    medians = [model.sample(300, label=grower)["proline"].median() for grower in model.classes]
    assert medians[0] > 1.3 * max(medians[1:])  # as in the data: 1095 against 495 and 628
    assert (found["scores"] < found["score_mixed"]).mean() > 0.9
    assert found["error"] < 25  # grey levels of 255; the mean image is 49 away
    assert (tmp_path / "wine.model/model.json").exists()


def test_the_architecture_picture_is_what_its_script_draws() -> None:
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs/architecture.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    fix = "docs/architecture.svg is stale: run `python docs/architecture.py`"
    assert script.PICTURE.read_text(encoding="utf-8") == script.drawing(), fix


def test_a_circle_of_imports_cannot_be_drawn() -> None:
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs/architecture.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    edges = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"c"}}
    assert script.layers(edges) == [["a", "d"], ["b"], ["c"]]
    assert script.reduced(edges) == {"a": {"b"}, "b": {"c"}, "c": set(), "d": {"c"}}
    with pytest.raises(ValueError, match="the imports of a, b go in a circle"):
        script.layers({"a": {"b"}, "b": {"a"}})
