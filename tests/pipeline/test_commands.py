"""The command line, the search's verdict, the cluster file: what does not need a pipeline to run."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import traced

from pipelines.__main__ import main
from pipelines.stages import tune
from pipelines.stages.train import curves, publish_frames
from pipelines.training.job import read_metrics

ROOT = Path(__file__).parents[2]
VERBS = ["prepare", "features", "tune", "train", "evaluate", "register", "report"]
VERBS += ["experiments", "promote", "sample", "lineage", "doctor", "data"]


def test_help_names_every_verb_and_how_it_ends(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(verb in told for verb in VERBS)
    assert "Exit status" in told


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    assert main([verb, "--help"]) == 0
    assert f"Usage: fivefold {verb}" in capsys.readouterr().out


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = "import sys; sys.argv = ['fivefold']; import pipelines.__main__; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [name for name in ("'torch'", "'ray'", "'mlflow'", "'sklearn'") if name in loaded]


def test_importing_does_no_work(tmp_path):
    """No folder, no file, no Ray, no MLflow."""
    modules = ["models", "data.dataset", "pipelines.training.loop", "pipelines.config", "pipelines.tracking"]
    code = f"import sys, {', '.join(modules)}; assert not {{'ray', 'mlflow'}} & set(sys.modules)"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_an_error_is_one_paragraph_and_the_status_is_1(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--family", "vae"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("fivefold train: params.yaml does not exist")
    assert "Traceback" not in told


def trial(score: float | None, *, examples: int = 100, written: bool = False, error: str | None = None) -> dict:
    return {"settings": {"lr": score}, "score": score, "examples": examples, "as_written": written, "error": error}


def test_settings_as_written_stay_unless_beaten_by_the_margin():
    assert tune.select_best([trial(1.0, written=True), trial(0.95)], 100, 0.1)[0] == {}
    assert tune.select_best([trial(1.0, written=True), trial(0.89), trial(0.85), trial(0.87)], 100, 0.1)[0] == {
        "lr": 0.85
    }


def test_a_trial_stopped_early_or_failed_is_not_chosen():
    trials = [trial(1.0, written=True), trial(0.1, examples=50), trial(None, error="boom")]
    settings, why = tune.select_best(trials, 100, 0.1)
    assert settings == {}
    assert "stopped early" in why


def test_a_sweep_of_failures_is_an_error_that_names_them():
    with pytest.raises(RuntimeError, match="boom"):
        tune.select_best([trial(None, error="boom"), trial(None, error="boom")], 100, 0.1)


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"examples": 1, "metrics": {}}\n{"examples": 2, "met')
    assert [point["examples"] for point in read_metrics(tmp_path)] == [1]


def test_the_first_and_the_last_grid_of_samples_are_kept_and_some_between(tmp_path: Path):
    """Of 22 grids eight, three apart; of none only a list, for DVC warns of an output without a file."""
    for folder in ("samples", "kept"):
        (tmp_path / folder).mkdir()
    for examples in range(22):
        (tmp_path / "samples" / f"{examples:012d}.png").write_text(str(examples))
    (tmp_path / "kept" / "000000000099.png").write_text("of an earlier training")
    publish_frames(tmp_path / "samples", tmp_path / "kept")
    kept = {path.name: path.read_text() for path in (tmp_path / "kept").glob("*.png")}
    assert kept == {f"{examples:012d}.png": str(examples) for examples in range(0, 22, 3)}
    assert json.loads((tmp_path / "kept/index.json").read_text()) == {"examples": list(range(0, 22, 3))}
    publish_frames(tmp_path / "nothing", tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["index.json"]


def test_curves_are_a_table_with_gaps():
    recorded = [
        {"examples": 1, "metrics": {"vae/loss": 2.0}},
        {"examples": 2, "metrics": {"vae/loss": 1.0, "validation_frechet": 0.5}},
    ]
    assert curves(recorded) == "examples,vae_loss,validation_frechet\n1,2,\n2,1,0.5\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_cluster_file_is_valid_for_ray():
    from ray.autoscaler._private.util import prepare_config, validate_config
    from ruamel.yaml import YAML

    config = prepare_config(YAML(typ="safe").load((ROOT / "ray_cluster.yaml").read_text()))
    validate_config(config)
    starts = " ".join(config["head_start_ray_commands"])
    assert "RAY_AUTH_MODE=token" in starts
    assert "--dashboard-host=127.0.0.1" in starts


def bound() -> None:
    """In a child: root may no longer pass over permissions (CAP_DAC_OVERRIDE, _READ_SEARCH, FOWNER)."""
    libc, header, held = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0
    held[0] &= ~(1 << 1 | 1 << 2 | 1 << 3)  # of those in effect
    assert libc.capset(header, held) == 0


def test_without_permission_to_write(tmp_path, monkeypatch):
    """Every stage that writes names the place and the fix, and leaves what was there as it was."""
    for name in ("data/catalog", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "rows.csv").write_text("a,b\n" + "1,2\n" * 30)

    monkeypatch.chdir(tmp_path)

    def every_stage() -> None:
        bound()
        for arguments in (["prepare"], ["features"], ["data", "add", "rows.csv", "--name", "rows"]):
            with contextlib.redirect_stderr(io.StringIO()) as told:
                assert main(arguments) == 1
            error = told.getvalue()
            assert "no permission to use" in error, error
            assert "chmod u+w" in error, error
            assert len(error.strip().splitlines()) == 1, error

    assert main(["prepare"]) == 0
    (tmp_path / "runs").mkdir()
    folders = [path for path in (tmp_path, *tmp_path.rglob("*")) if path.is_dir()]
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for folder in folders:
        folder.chmod(0o500)
    try:
        traced.fresh(every_stage)
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    finally:
        for folder in folders:
            folder.chmod(0o700)
