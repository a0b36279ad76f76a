"""What makes a training the same one: which files, settings and digests count, and that DVC sees as much."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from data.dataset import Dataset
from models import FAMILIES
from models.domains import DOMAINS
from pipelines import config as params
from pipelines import tracking
from pipelines.evaluation.config import ReferenceConfig
from pipelines.stages import train, tune
from pipelines.stages.features import features
from pipelines.stages.prepare import prepare
from pipelines.training.config import TrainingConfig
from pipelines.training.context import WorkerContext
from pipelines.training.identity import PACKAGES, identity, identity_digest, import_closure, training_code
from pipelines.training.job import TrainingJob, failure
from pipelines.training.worker import run_worker

ROOT = Path(__file__).parents[2]
JOB = TrainingJob(
    spec={"family": "gan", "config": {"width": 8}, "domain": {"kind": "image"}, "classes": 10},
    training=dataclasses.asdict(TrainingConfig()),
    seed=0,
    prepared="prepared",
    yardstick="yardstick",
    state="state",
)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages that may be edited."""
    root = tmp_path_factory.mktemp("code")
    for name in PACKAGES:
        for path in (ROOT / name).rglob("*.py"):
            target = root / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return root


@pytest.fixture
def edit(code: Path) -> Iterator[Any]:
    """Write a file of the copy, and put back what was there when the test is over."""
    before: dict[Path, str] = {}

    def write(name: str, text: str) -> None:
        before.setdefault(code / name, (code / name).read_text())
        (code / name).write_text(text)

    yield write
    for path, text in before.items():
        path.write_text(text)


def key(root: Path, data: str = "d", reference: str = "r", **changes: Any) -> str:
    return identity_digest(identity(dataclasses.replace(JOB, **changes), data, reference, root))


def with_another_constant(text: str) -> str:
    """The text with its last number, word or truth value changed that is no docstring."""
    tree = ast.parse(text)
    comments = {id(line.value) for line in ast.walk(tree) if isinstance(line, ast.Expr)}
    in_strings = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    for node in sorted(constants, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        if id(node) not in comments | in_strings:
            value: Any = node.value
            if not isinstance(value, (bool, int, float, str)):
                continue
            other = not value if isinstance(value, bool) else value + ("x" if isinstance(value, str) else 1)
            lines = text.encode().splitlines(keepends=True)
            assert node.end_lineno is not None
            start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
            end = sum(map(len, lines[: node.end_lineno - 1])) + (node.end_col_offset or 0)
            return (text.encode()[:start] + repr(other).encode() + text.encode()[end:]).decode()
    return text + "\nCHANGED = 1\n"


def with_other_comments(text: str) -> str:
    """The text with a comment more, and with every docstring changed."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for line in getattr(node, "body", None) or [] if not isinstance(node, (ast.Lambda, ast.IfExp)) else []:
            if (
                isinstance(line, ast.Expr)
                and isinstance(line.value, ast.Constant)
                and isinstance(line.value.value, str)
            ):
                line.value.value += " And more."
    return f"# why\n{ast.unparse(tree)}\n"


@pytest.mark.parametrize(("family", "kind"), [("gan", "image"), ("diffusion", "table")])
def test_a_constant_in_any_file_makes_another_training_and_a_comment_does_not(
    family: str, kind: str, code: Path, edit: Any
) -> None:
    spec = JOB.spec | {"family": family, "domain": {"kind": kind}}
    original = key(code, spec=spec)
    files = list(training_code(family, kind, code))
    assert {  # what lists kept by hand had left out, beside what they had
        "pipelines/training/worker.py",
        "pipelines/training/fsdp.py",
        "pipelines/training/loop.py",
        "pipelines/evaluation/validation.py",
        "data/shards.py",
        "data/batches.py",
        "data/permutation.py",
    } < set(files)
    texts = {name: (code / name).read_text() for name in files}
    others = set()
    for name, text in texts.items():
        edit(name, with_another_constant(text))
        others.add(key(code, spec=spec))
        edit(name, text)
    assert len(others | {original}) == len(files) + 1
    for name, text in texts.items():
        edit(name, with_other_comments(text))
    assert key(code, spec=spec) == original


@pytest.mark.parametrize("family", FAMILIES)
def test_no_other_family_and_no_other_kind_of_data_counts(family: str, code: Path, edit: Any) -> None:
    homes = {name: FAMILIES[name].__module__.replace(".", "/") for name in FAMILIES}
    files = training_code(family, "image", code)
    found = {name for name, home in homes.items() if any(f == f"{home}.py" or f.startswith(f"{home}/") for f in files)}
    priors = {"flow", "diffusion"} if family in ("autoencoder", "vae") else set()  # which their codes may be drawn by
    assert found == {family} | priors
    assert "models/domains/table.py" not in training_code("gan", "image", code)
    table = (code / "models/__init__.py").read_text()
    edit(
        "models/__init__.py",
        table.replace('    "gan": GAN,', '    "gan": GAN,\n    "sixth": Sixth,').replace(
            "from .gan import GAN", "from .gan import GAN\nfrom .sixth import Sixth"
        ),
    )
    assert training_code(family, "image", code) == files
    edit("models/__init__.py", table.replace(f'    "{family}": ', f'    "{family}": NAMED or '))
    assert training_code(family, "image", code) != files


def test_the_code_of_the_search_makes_another_sweep(code: Path, edit: Any) -> None:
    """What draws settings and stops trials; the training's own code, too, but not how a stage chooses among trials."""
    settings = params.load(ROOT / "params.yaml")

    def key() -> str:
        return tune.sweep_key(JOB, settings, settings.family["gan"], "d", "r", code)

    keys = [key()]
    for name, old, new in (
        ("pipelines/cluster/trials.py", "reduction_factor=2", "reduction_factor=3"),
        ("pipelines/execution/search.py", "EVALUATIONS = 3", "EVALUATIONS = 4"),
        ("pipelines/training/loop.py", "from __future__ import annotations\n", "CHANGED = 1\n"),
    ):
        text = (code / name).read_text()
        assert old in text
        edit(name, with_other_comments(text))
        assert key() == keys[-1]
        edit(name, text.replace(old, new))
        keys.append(key())
    assert len(set(keys)) == len(keys)
    stage = "pipelines/stages/tune.py"
    edit(stage, (code / stage).read_text() + "\nCHANGED = 1\n")
    assert key() == keys[-1]


def test_a_kind_of_data_registered_from_outside_counts_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file, what that imports beside it, and what it imports of ours; not its comments, nor for other kinds."""
    (tmp_path / "strange").mkdir()
    ours, beside = "from models.domains.table import Table\n", "from strange.near import SIZE\n"
    text = f"{ours}{beside}\nclass Strange(Table):\n    size = SIZE\n"
    texts = {"__init__.py": "", "domain.py": text, "near.py": "SIZE = 1\n", "far.py": "SIZE = 1\n"}
    files = {name: tmp_path / "strange" / name for name in texts}
    for name, content in texts.items():
        files[name].write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(DOMAINS, "strange", importlib.import_module("strange.domain").Strange)
    of_it, of_images = JOB.spec | {"domain": {"kind": "strange"}}, JOB.spec
    found, before = training_code("gan", "strange"), key(ROOT, spec=of_images)
    assert {"strange/domain.py", "strange/near.py", "models/domains/table.py"} < set(found)
    assert not {"strange/far.py", "strange/__init__.py"} & set(found)
    keys = [key(ROOT, spec=of_it)]
    files["domain.py"].write_text(f"# why\n{text}")
    assert key(ROOT, spec=of_it) == keys[0]
    for name, content in (("domain.py", text + "    more = 1\n"), ("near.py", "SIZE = 2\n")):
        files[name].write_text(content)
        keys.append(key(ROOT, spec=of_it))
    assert len(set(keys)) == 3
    assert key(ROOT, spec=of_images) == before


def test_imports_are_followed_as_python_follows_them(tmp_path: Path) -> None:
    texts = {
        "a/__init__.py": "from .table import KINDS\n",
        "a/start.py": "import a.plain\nfrom a import named\nfrom .deep import below as other\n"
        "def f():\n    from a.late import x\n",
        "a/plain.py": "import os\n",
        "a/named.py": "",
        "a/late.py": "from ..b import nothing\n",
        "a/unused.py": "import a.start\n",
        "a/deep/__init__.py": "from .unused import y\n",
        "a/deep/below.py": "from ..kinds import make\nfrom ..kinds import Green\n",
        "a/deep/unused.py": "",
        "a/kinds/__init__.py": "from .red import Red\nfrom .green import Green\nfrom .blue import Blue\n"
        "KINDS = {'red': Red, 'green': Green, 'blue': Blue}\ndef make(): return KINDS['red']\n",
        **{f"a/kinds/{colour}.py": f"class {colour.title()}: pass\n" for colour in ("red", "green", "blue")},
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    start = ["a/start.py", "a/plain.py", "a/named.py", "a/late.py", "a/deep/below.py", "a/kinds/__init__.py"]
    colours = [f"a/kinds/{colour}.py" for colour in ("red", "green", "blue")]
    assert set(import_closure(tmp_path, ["a"], ["a.start"])) == {*start, *colours}
    assert set(import_closure(tmp_path, ["a"], ["a.start"], {"red"})) == {*start, *colours[:2]}  # green by its name
    with pytest.raises(ValueError, match=r"there is no module a\.nosuch below"):
        import_closure(tmp_path, ["a"], ["a.nosuch"])


def test_only_settings_that_change_what_is_learned_count() -> None:
    original, how = key(ROOT), set()
    for name, value in JOB.training.items():
        if isinstance(value, dict):
            other = value | {"epsilon": 8.0}
        else:
            other = {"constant": "cosine", "cosine": "constant", "auto": "fp32", "": "5m"}.get(value) or value + 1
        if key(ROOT, training=JOB.training | {name: other}) == original:
            how.add(name)
    assert how == {"budget", "reports", "checkpoints", "accumulate"}
    elsewhere = {"prepared": "p", "yardstick": "y", "state": "s", "checkpoints": "c", "shard": True, "run_id": "r"}
    assert key(ROOT, **elsewhere, policy={"rollback": True}, identity={"x": 1}) == original
    others = [
        key(ROOT, data="e"),
        key(ROOT, reference="e"),
        key(ROOT, seed=1),
        key(ROOT, spec=JOB.spec | {"classes": 1}),
    ]
    assert len({original, *others}) == 5


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The digits, prepared, with a small reference, in the working directory."""
    root = tmp_path_factory.mktemp("project")
    (root / "data/catalog").mkdir(parents=True)
    shutil.copy(ROOT / "data/catalog/digits.yaml", root / "data/catalog")
    prepare("digits", root=root)
    few = ReferenceConfig(examples=256, rows=100, samples=100, bootstrap=0, components=(4,))
    features("digits", settings=few, root=root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield root


def test_every_file_that_runs_in_a_training_counts(project: Path, tmp_path: Path) -> None:
    """The profiler sees which files' functions a worker calls, from its data to its finished model."""
    small = TrainingConfig(total_examples=64, batch_size=32, reports=2, checkpoints=2, evaluations=1)
    job = TrainingJob(
        spec={
            "family": "vae",
            "config": {"latent": 4, "width": 8},
            "domain": Dataset.open(project / "data/prepared/digits").domain,
            "classes": 10,
        },
        training=dataclasses.asdict(small),
        seed=0,
        prepared=str(project / "data/prepared/digits"),
        yardstick=str(project / "runs/digits/yardstick"),
        state=str(tmp_path),
        checkpoints=str(tmp_path / "checkpoints"),
    )
    called: set[CodeType] = set()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            called.add(frame.f_code)

    sys.setprofile(profile)
    threading.setprofile(profile)
    try:
        run_worker(dataclasses.asdict(job), WorkerContext())
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert failure(tmp_path) is None
    ours = {Path(code.co_filename) for code in called if code.co_name != "<module>"}
    ran = {path.relative_to(ROOT).as_posix() for path in ours if path.is_relative_to(ROOT)}
    ran = {name for name in ran if name.split("/")[0] in PACKAGES}
    assert {"pipelines/evaluation/validation.py", "data/batches.py", "models/vae/__init__.py"} < ran
    assert ran <= set(training_code("vae", "image"))


def test_a_changed_reference_does_not_find_the_finished_model_and_another_way_to_draw_does(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shutil.copy(ROOT / "params.yaml", project)
    (project / "runs/digits/tune").mkdir(exist_ok=True)
    (project / "runs/digits/tune/vae.json").write_text('{"settings": {}}')
    trained: list[str] = []
    draws: list[dict[str, Any]] = []

    def finish(job: TrainingJob, *_: Any, **__: Any) -> None:
        trained.append(job.state)
        (Path(job.state) / "model").mkdir()
        (Path(job.state) / "model" / train.artifact.MANIFEST).touch()

    run = SimpleNamespace(run_id="r", sync=lambda _: None)
    monkeypatch.setattr(tracking.TrainingRun, "open", lambda **_: nullcontext(run))
    monkeypatch.setattr(train, "_run", finish)
    monkeypatch.setattr(train, "_publish", lambda job, sampling, *_: draws.append(sampling))
    train.train("vae")
    train.train("vae")
    (project / "params.yaml").write_text(
        (ROOT / "params.yaml").read_text().replace("draw_pixels:", "draw_pixels: true")
    )
    train.train("vae")  # drawn otherwise, and trained the same
    assert draws == [{"draw_pixels": False}] * 2 + [{"draw_pixels": True}]
    assert len(trained) == 1
    assert "starting afresh" not in caplog.text
    assert "vae: trained already" in caplog.text
    features("digits", settings=ReferenceConfig(examples=256, rows=99, samples=100, bootstrap=0, components=(4,)))
    train.train("vae")
    assert len(set(trained)) == 2
    assert "vae: starting afresh, for since the last training reference changed" in caplog.text


def depends(stage: str) -> list[str]:
    """Files and rooms of the code that a stage of `dvc.yaml` depends on."""
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    return [path for path in stages[stage]["deps"] if path.split("/")[0] in PACKAGES and "$" not in path]


RECORDS = ("pipelines/tracking/", "pipelines/serving/")
"""Rooms that tell of a result to MLflow: a tuning or a training is not made of them."""


@pytest.mark.parametrize("stage", ["settings", "features", "tune", "train", "evaluate", "register", "report"])
def test_dvc_skips_nothing_that_a_stage_is_made_of(stage: str) -> None:
    """A stage after `train` sees the training's code through the model, which states its identity; `tune` and `train`
    are made of that code and of their own imports, but for those that only tell of them."""
    rooms = depends(stage)
    assert [room for room in rooms if not (ROOT / room).exists()] == []
    for family in FAMILIES:
        for kind in DOMAINS:
            training = set(training_code(family, kind))
            needed = set(import_closure(ROOT, PACKAGES, [f"pipelines.stages.{stage}"], {family, kind}))
            if stage in ("tune", "train"):
                needed = training | {name for name in needed if not name.startswith(RECORDS)}
            elif stage != "features":
                needed -= training
            unseen = {name for name in needed if not any(name == room or name.startswith(f"{room}/") for room in rooms)}
            assert unseen == set()
