"""Two datasets in one project, a source that is edited, and what reruns: by DVC and the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML
from small_projects import SmallProject

from pipelines import config
from pipelines.__main__ import main
from pipelines.config.pipeline_file import pipeline_text, stage_datasets
from pipelines.training.config import TrainingConfig

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # MLflow's own

SEARCHED = {"settings": {}, "why": "as written: score 1; best other 1.2, not better by 5%", "trials": []}
CURVES = "examples,{0}_loss,validation_frechet\n10,9,\n20,8,0.75\n30,7,\n40,6,0.5\n"

Run = Callable[..., str]
Two = tuple[Path, Run]


@pytest.fixture(scope="module")
def two(shop: SmallProject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """A project with the shop and a market that is its like, all stages of the shop done for one dataset."""
    root = tmp_path_factory.mktemp("two") / "project"
    shutil.copytree(shop.root, root)
    ignored = shutil.ignore_patterns("__pycache__", "prepared", "raw")
    for name in ("models", "data", "pipelines"):
        shutil.copytree(ROOT / name, root / name, dirs_exist_ok=True, ignore=ignored)
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root)
    runs = root / "runs/shop"
    for folder in ("tune", "curves"):
        (runs / folder).mkdir(exist_ok=True)
    for family in ("vae", "flow"):
        (runs / f"tune/{family}.json").write_text(json.dumps(SEARCHED))
        (runs / f"curves/{family}.csv").write_text(CURVES.format(family))
        (runs / f"progress/{family}").mkdir(parents=True)
        (runs / f"progress/{family}/index.json").write_text('{"examples": []}')
    with SmallProject(root, "shop").entered():
        assert main(["settings", "--write"]) == 0
        assert main(["report"]) == 0

    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": str(root), "COLUMNS": "100"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    environment |= {"DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    environment |= {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def run(*command: str, status: int = 0) -> str:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    run("git", "init", "-q")
    run("dvc", "init", "-q")
    run("dvc", "commit", "-q", "--force")
    run("git", "add", "--all")
    run("git", "commit", "-qm", "one dataset")
    with SmallProject(root, "shop").entered(), pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():  # for commands of ours, which need no process
            patch.setenv(name, value)
        MlflowClient().delete_registered_model("shop")
        yield root, run


def changed_stages(status: str) -> list[str]:
    """The stages that `dvc status` has something to say of."""
    return [line.removesuffix(":") for line in status.splitlines() if line.endswith(":") and line[0].isalpha()]


def ran(told: str) -> list[str]:
    """The stages that DVC ran."""
    return [line.split("'")[1] for line in told.splitlines() if line.startswith("Running stage")]


def files(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, byte by byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rewrite(path: Path, *replaced: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in replaced:
        assert old in text, f"{path} lacks {old!r}"
        text = text.replace(old, new)
    path.write_text(text)


def test_comments_rerun_nothing_and_denser_curves_only_the_stage_that_writes_settings(two: Two) -> None:
    root, run = two
    assert "up to date" in run("dvc", "status")
    before = {name: (root / name).read_text() for name in ("params.yaml", "recipes/shop.yaml")}
    for name, text in before.items():
        (root / name).write_text(f"# other words\n{text}# and more\n")
    assert "up to date" in run("dvc", "status")
    curves = "{training: {reports: 7, checkpoints: 3, accumulate: 2}}"
    rewrite(root / "params.yaml", ("vae: {}", f"vae: {curves}"))
    assert ran(run("dvc", "repro")) == ["settings"]
    shown = json.loads(run("dvc", "params", "diff", "--json"))["runs/shop/settings.yaml"]
    assert set(shown) == {f"vae.training.{name}" for name in ("reports", "checkpoints", "accumulate")}
    for name, text in before.items():
        (root / name).write_text(text)
    assert ran(run("dvc", "repro")) == ["settings"]


def test_training_depends_on_every_setting_that_is_learned_and_on_no_other() -> None:
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    learned = {each.name for each in fields(TrainingConfig) if each.metadata.get("changes_model", True)}
    for stage, of_its_own in (("train", set()), ("tune", {"evaluations"})):  # trials have their own
        (keys,) = (keys for entry in stages[stage]["params"] for name, keys in entry.items() if "settings.yaml" in name)
        prefix = "${item.family}.training."
        assert {key.removeprefix(prefix) for key in keys if key.startswith(prefix)} == learned - of_its_own


def test_an_edited_source_is_named_and_nothing_runs_until_it_is_accepted(two: Two) -> None:
    root, run = two
    source = root / "shop.csv"
    before, size = source.read_text(), source.stat().st_size
    rows = before.splitlines()[1:]
    source.write_text(f"{before}{rows[5]}\n{rows[6]}\n")
    assert changed_stages(run("dvc", "status")) == ["data/dvc.yaml:source@shop"]
    told = run("dvc", "repro", status=255)
    assert ran(told) == ["data/dvc.yaml:source@shop"]
    assert f"{len(rows) + 2} examples now" in told
    assert f"{source.stat().st_size:,} bytes (were {size:,})" in told
    assert f"2 added: number {len(rows) + 1}, {len(rows) + 2}" in told
    assert "`fivefold data update shop` accepts it" in told
    source.write_text(before)
    assert "up to date" in run("dvc", "status")  # as the card states: nothing was run, nothing is to be


def test_both_forms_of_the_pipeline_follow_from_each_other() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    several = pipeline_text(text, ["shop", "1.5"])
    assert stage_datasets(several) == ("shop", "1.5")
    assert stage_datasets(text) == ()
    assert pipeline_text(several, []) == text
    assert pipeline_text(several, ["no"]) == pipeline_text(text, ["no"])
    stages = YAML(typ="safe").load(several)["stages"]
    assert {tuple(stage["matrix"]["dataset"]) for stage in stages.values()} == {("shop", "1.5")}
    commands = {stage["cmd"] for stage in stages.values()}
    assert not [command for command in commands if "${" in command.replace("${item}", "")]  # text is not quoted
    assert "${dataset}" not in several


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("datasets: [digits, adult]", "several datasets: digits, adult.*--dataset digits"),
        ("dataset: wine\ndatasets: [digits, adult]", "dataset: wine, which is none of its datasets: digits, adult"),
        ("datasets: [digits, digits]\ndataset: digits", "datasets: a dataset is named twice"),
        ("datasets: digits\ndataset: digits", r"datasets: must be a list of cards .*got 'digits'"),
        ("datasets: [digits, ../x]\ndataset: digits", r"datasets: '\.\./x' is no name of a card"),
    ],
)
def test_which_dataset_is_meant_is_never_guessed(lines: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"{lines}\nfamilies: [vae]\nvae: {{}}\n")
    with pytest.raises(ValueError, match=f"(?s){told}"):
        config.load(path)


def test_one_of_several_is_meant_where_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    rest = "families: [vae]\nvae: {}\n"
    for lines, asked, meant in (
        ("datasets: [digits, adult]", "adult", "adult"),
        ("datasets: [digits, adult]\ndataset: adult", None, "adult"),
        ("datasets: [digits]", None, "digits"),
        ("dataset: digits\ndatasets:", None, "digits"),
    ):
        path.write_text(f"{lines}\n{rest}")
        assert config.load(path, dataset=asked).dataset == meant


def with_market(root: Path) -> None:
    """A second dataset of the same rows, as if all its stages had run."""
    (root / "market.csv").write_text((root / "shop.csv").read_text())
    assert main(["data", "add", "market.csv", "--name", "market", "--label", "tier"]) == 0
    for folder in ("runs", "data/prepared"):
        shutil.copytree(root / folder / "shop", root / folder / "market")
    for path in (root / "data/prepared/market/manifest.json", root / "runs/market/settings.yaml"):
        path.write_text(path.read_text().replace('"shop"', '"market"').replace("`shop`", "`market`"))
    rewrite(root / "params.yaml", ("dataset: shop", "datasets: [shop, market]"))


def test_two_datasets_stand_side_by_side(two: Two, capfd: pytest.CaptureFixture[str]) -> None:
    """Switching runs nothing of the first again; an experiment on one leaves every file of the other in its place."""
    root, run = two
    with_market(root)
    assert main(["settings", "--write", "--dataset", "shop"]) == 1
    assert "Run `fivefold pipeline`" in capfd.readouterr().err
    assert main(["pipeline"]) == 0
    assert "the stages of shop, market" in capfd.readouterr().out
    assert [name for name in changed_stages(run("dvc", "status")) if "shop" in name] == ["settings@shop"]
    run("dvc", "commit", "-q", "--force")
    run("git", "add", "--all")
    run("git", "commit", "-qm", "two datasets")
    assert "up to date" in run("dvc", "status")

    before = files(root / "runs") | files(root / "data/prepared")
    assert {name.split("/")[0] for name in before} == {"shop", "market"}
    beta = config.load(dataset="market").family["vae"].model.beta
    (root / "recipes/market.yaml").write_text(f"vae: {{model: {{beta: {beta}}}}}\n")  # as it was
    assert ran(run("dvc", "exp", "run", "--name", "said")) == ["settings@market"]
    run("dvc", "checkout")
    assert files(root / "runs") | files(root / "data/prepared") == before

    assert main(["experiments", "--dataset", "market"]) == 0
    shown = capfd.readouterr().out
    number = json.loads((root / "runs/market/flow.json").read_text())["generation↓"]
    assert "generation↓ by family on market" in shown
    assert f"{number:.4g}" in shown
    main(["doctor", "--json"])
    texts = [check["text"] for check in json.loads(capfd.readouterr().out)]
    assert "params.yaml: vae, flow on shop and on market" in texts
    assert "an edited source is noticed" in texts
    assert main(["register"]) == 1
    assert "--dataset shop" in capfd.readouterr().err
    assert main(["register", "--dataset", "market"]) == 0
    assert {model.name for model in MlflowClient().search_registered_models()} == {"market"}

    (root / "data/dvc.yaml").unlink()
    main(["doctor", "--json"])
    loose = [check for check in json.loads(capfd.readouterr().out) if "an edit of the source" in check["text"]]
    assert [check["mark"] for check in loose] == ["warn"]
    assert "`fivefold data update shop`, `fivefold data update market`" in loose[0]["text"]
    run("git", "checkout", "-q", ".")
    rewrite(root / "params.yaml", ("datasets: [shop, market]", "dataset: shop"))
    assert main(["pipeline"]) == 0
    assert (root / "dvc.yaml").read_text() == (ROOT / "dvc.yaml").read_text()
    assert changed_stages(run("dvc", "status")) == ["settings"]
