"""What strangers send: names, settings, cards and tables that want to be more than that."""

from __future__ import annotations

import errno
import io
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file

from data import schema
from data.files import out_of_space, whole_folder
from data.readers.base import here
from pipelines.__main__ import main
from pipelines.cli.spreadsheet import without_formulas
from pipelines.stages.prepare import prepare

ROOT = Path(__file__).parents[2]
PARAMS = "dataset: digits\nseed: 0\nfamilies: [vae]\nvae: {}\n"
NO_NAMES = ["my data", "", "../../x", "..", "a/b", "x;touch ran", "$(touch ran)", "-x", "é", "x" * 101, "a\nb"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, and a card outside of its catalog."""
    root = tmp_path / "project"
    (root / "data/catalog").mkdir(parents=True)
    shutil.copy(ROOT / "data/catalog/digits.yaml", root / "data/catalog")
    shutil.copy(ROOT / "data/catalog/digits.yaml", tmp_path / "x.yaml")
    (root / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_given_is_never_replaced_by_something_else(name, project, capsys):
    """No command falls back on the dataset of params.yaml, or leaves the catalog."""
    commands = [
        ["prepare", f"--dataset={name}"],
        ["train", "--family=vae", f"--dataset={name}"],
        ["lineage", f"--dataset={name}"],
        ["data", "show", "--", name],
        ["data", "export", "--to=out", "--", name],
        ["data", "add", "nothing.csv", f"--name={name}"],
    ]
    for command in commands:
        assert main(command) == 1, command
        told = capsys.readouterr().err
        assert "letters, digits" in told, command
        assert "Traceback" not in told
    assert sorted(path.name for path in project.iterdir()) == ["data", "params.yaml"]
    assert not (project / "data/prepared").exists()


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: &a\n  b: *a\n",
        f"a: {'[' * 60}{']' * 60}",
        "a: [" + ", ".join(["1"] * 1_001) + "]",
    ],
    ids=["aliases of aliases", "holds itself", "deep", "long"],
)
@pytest.mark.parametrize("where", ["params.yaml", "data/catalog/digits.yaml", "recipes/digits.yaml"])
def test_a_small_file_that_holds_much_is_refused_by_name(text, where, project, capsys, monkeypatch):
    monkeypatch.setattr(schema, "MOST_VALUES", 1_000)
    (project / where).parent.mkdir(exist_ok=True)
    (project / where).write_text(text if where == "recipes/digits.yaml" else (project / where).read_text() + text)
    assert main(["prepare"]) == 1
    told = capsys.readouterr().err
    assert where in told
    assert "nested more than 40 deep" in told or "holds more than 1000 values" in told
    assert len(told) < 1_000


@pytest.mark.parametrize(
    ("line", "stage", "told"),
    [
        ("families: [\"vae' $(touch ran); touch ran ; '\", ../../../data/raw]", "tune", "unknown family"),
        ("dataset: ..", "prepare", "dataset: must name a card"),
    ],
)
def test_names_reach_no_shell(line, stage, told, project):
    """`dvc repro` with a stranger's params.yaml runs nothing of it, and deletes nothing outside its outputs."""
    key = line.split(":")[0]
    lines = [line if old.startswith(f"{key}:") else old for old in PARAMS.splitlines()]
    (project / "params.yaml").write_text("\n".join(lines) + "\n")
    shutil.copy(ROOT / "dvc.yaml", project)
    kept = [project / "data/raw.json", project / "data/catalog/digits.yaml"]
    kept[0].touch()
    commands = [stage["cmd"] for stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].values()]
    assert not [command for command in commands if "${" in command.replace("${item}", "")]  # text is not quoted
    (project / ".dvc").mkdir()
    (project / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    ran = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "-s", "-f", "-k", stage],  # goes on to the next family
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert ran.returncode != 0
    output = ran.stdout + ran.stderr
    assert output.count("Running stage") == line.count(",") + 1
    assert told in output
    assert not list(project.rglob("ran"))
    assert [path for path in kept if not path.exists()] == []


def test_no_cell_of_a_safe_csv_is_a_formula():
    """Read back, every text is the same behind its apostrophe, and numbers are numbers."""
    frame = pd.DataFrame({"=name": ["=1+1", "a", None], "n": [-1.5, 2, 3], "text": ["-1", "+47 1", "@x"]})
    frame["kind"] = pd.Categorical(["-x", "y", None])
    safe = pd.read_csv(io.StringIO(without_formulas(frame).to_csv(index=False)), dtype={"text": str})
    assert list(safe.columns) == ["'=name", "n", "text", "kind"]
    assert safe["'=name"].tolist()[:2] == ["'=1+1", "a"]
    assert safe["n"].tolist() == [-1.5, 2, 3]
    assert safe["text"].tolist() == ["-1", "'+47 1", "'@x"]
    assert safe["kind"].tolist()[:2] == ["'-x", "y"]
    assert safe.isna().sum().tolist() == [1, 0, 0, 1]
    assert frame.columns[0] == "=name"


ESCAPES = "\x1b]0;owned\x9c\x1b[2J\u202etxt.exe"


def test_a_strangers_text_is_shown_and_not_obeyed(tmp_path, monkeypatch, capsys):
    """On the terminal no cursor moves; in Markdown there is no link, no tag and no second heading."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{i / 7:.3f},{['x', ESCAPES][i % 2]},y{i % 3}\n" for i in range(200))
    (tmp_path / "rows.csv").write_text(f"a,{ESCAPES},c\n{rows}", encoding="utf-8")
    assert main(["data", "add", "rows.csv", "--name", "rows"]) == 0
    card = tmp_path / "data/catalog/rows.yaml"
    title = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) \\n# heading"
    text = card.read_text(encoding="utf-8")
    card.write_text(f'title: "{title}"\n' + re.sub("(?m)^title.*", "", text))
    prepare("rows", root=tmp_path, mapper=here)
    assert main(["data", "show", "rows"]) == 0
    told = capsys.readouterr().out
    assert "\\u001b]0;owned" in told
    assert not {"\x1b", "\x9c", "\u202e"} & set(told)
    page = (tmp_path / "data/prepared/rows/README.md").read_text(encoding="utf-8")
    first = page.splitlines()[0]
    assert first.startswith("# \\<img")
    assert "\\[x\\]\\(javascript" in first
    assert [line for line in page.splitlines() if line.startswith("# ")] == [first]


def test_what_a_library_makes_of_a_full_disk_is_told_as_one(tmp_path, monkeypatch, capsys):
    """Weights that find no room: the library's own exception becomes the system's, and one sentence."""

    def write(*_: object, **__: object) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with whole_folder(tmp_path / "model") as folder:
                save_file({"x": torch.zeros(100_000)}, folder / "weights")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.cli.data.show", write)
    with pytest.raises(OSError) as raised:
        write()
    assert raised.value.errno == errno.EFBIG
    assert main(["data", "show", "x"]) == 1
    told = capsys.readouterr().err
    assert "free some space, or raise the quota or the limit" in told
    assert len(told.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    assert out_of_space(RuntimeError("(sqlite3.OperationalError) database or disk is full"))
