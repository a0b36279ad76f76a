"""Nothing but the rooms called `domains` asks what the data are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from models.domains import DOMAINS as MODEL_DOMAINS
from pipelines.evaluation.domains import DOMAINS, evaluation_domain
from pipelines.report.domains import USES, use

ROOT = Path(__file__).parents[2]
QUESTION = re.compile(
    r"""kind["'\])]*\s*(==|!=|in\b)\s*[(\[]?["'](image|table)|["'](image|table)["']\s*(==|!=)|\bndim\s*(==|!=)\s*[34]
    |len\([\w.]*shape\)|isinstance\([^)]*\b(Image|Table|Grid)\b""",
    re.VERBOSE,
)


@pytest.mark.parametrize("room", ["evaluation", "report", "stages"])
def test_no_branch_on_the_kind_of_data_outside_its_files(room: str):
    files = [path for path in (ROOT / "pipelines" / room).rglob("*") if path.suffix in (".py", ".html")]
    assert len(files) > 5
    asked = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in files
        if "domains" not in path.parts
        for line in path.read_text(encoding="utf-8").splitlines()
        if QUESTION.search(line)
    ]
    assert asked == []


def test_the_question_is_recognized():
    for line in (
        'if domain["kind"] == "image":',
        'if self.dataset.kind == "table":',
        "scale = 0.5 if len(inputs.shape) == 3 else 1.0",
        "if isinstance(domain, Table):",
        "x.ndim == 4",
    ):
        assert QUESTION.search(line), line


def test_every_kind_that_models_know_has_its_files():
    assert set(DOMAINS) == set(USES) == set(MODEL_DOMAINS)
    with pytest.raises(ValueError, match="knows image, table, not data of kind 'sound'"):
        evaluation_domain({"kind": "sound"})


def test_the_page_tells_how_to_ask_for_samples_of_each_kind():
    image = use({"kind": "image", "height": 8, "width": 9, "channels": 3})
    assert (image.library, image.nothing) == ("numpy as np", "np.zeros((0, 8, 9, 3), np.uint8)")
    table = use({"kind": "table", "columns": []})
    assert (table.library, table.file) == ("pandas as pd", "rows.csv")
