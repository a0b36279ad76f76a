"""The stage as a whole: the same bytes every time, visible at once or not at all, errors that tell what to do."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.cards import load_card
from data.dataset import Dataset
from data.ingest import parallel
from data.ingest.parallel import in_processes
from pipelines.cli.data import add
from pipelines.stages.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    (tmp_path / "data/catalog").mkdir(parents=True)
    shutil.copy(ROOT / "data/catalog/digits.yaml", tmp_path / "data/catalog/digits.yaml")
    return tmp_path


def test_digits(digits: Path) -> None:
    manifest = prepare("digits", root=digits)
    data = Dataset.open(digits / "data/prepared/digits")
    data.verify()
    assert data.digest == manifest["digest"] == "b56d0b16fff388c5ac455699c5b3b74240f025c6f9626e1f49a6ac139265a71d"
    assert data.domain == {"kind": "image", "channels": 1, "height": 8, "width": 8, "levels": 17}
    assert data.class_names == [str(i) for i in range(10)]
    assert {name: len(data.split(name)) for name in data.splits} == {"train": 1258, "val": 180, "test": 359}
    from sklearn.datasets import load_digits

    original = load_digits()
    for name in data.splits:
        split = data.split(name)
        rows = split.sources.numpy()
        x = np.round(original.images[rows] * 255 / 16).astype(np.uint8)[..., None]
        assert (split.all().x.numpy() == x).all()
        assert (split.labels.numpy() == original.target[rows]).all()
        assert (split.take([3, 0, 3]).x == split.all().x[[3, 0, 3]]).all()
        assert (split.slice(5, 9).x == split.all().x[5:9]).all()
    prefix = np.bincount(data.split("train").labels.numpy()[:400], minlength=10)
    assert prefix.min() > 15  # splits are shuffled: any prefix is a fair sample
    assert len(pickle.loads(pickle.dumps(data.split("train"))).all()) == 1258
    with pytest.raises(ValueError, match=r"no split 'dev'; it has train, val, test"):
        data.split("dev")
    with pytest.raises(IndexError, match="positions 0 … 179"):
        data.split("val").take([180])


def image_archive(root: Path, n: int = 3000) -> Path:
    folder = root / "source"
    random = np.random.default_rng(0)
    for i in range(n):
        path = folder / f"{i % 3}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (4, 4, 3)).astype(np.uint8)).save(path)
    return Path(shutil.make_archive(str(root / "images"), "zip", folder))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_bytes_from_one_process_or_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = image_archive(tmp_path)
    monkeypatch.setattr(parallel, "WORTH_BYTES", 0)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    add(str(source), "d", root=tmp_path, quiet=True)
    assert 'path: "images.zip"' in (tmp_path / "data/catalog/d.yaml").read_text()  # the project can be moved
    prepare("d", root=tmp_path, mapper=in_processes)
    first = files(tmp_path / "data/prepared/d")
    prepare("d", tmp_path / "elsewhere", root=tmp_path, mapper=lambda function, items, size: map(function, items))
    assert files(tmp_path / "elsewhere") == first
    assert not [path for path in (tmp_path / "data/prepared").iterdir() if path.name != "d"]


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from data.ingest import build as building
from pipelines.stages.prepare import prepare
honest = building.write_shard
def slow(path, *arguments):
    print("writing", flush=True)
    import time
    time.sleep(float(sys.argv[3]))
    return honest(path, *arguments)
building.write_shard = slow
prepare("digits", root=Path(sys.argv[1]))
"""


def test_killed_in_the_middle(digits: Path) -> None:
    prepare("digits", root=digits)
    before = files(digits / "data/prepared/digits")
    (digits / "data/prepared/digits/manifest.json").chmod(0o644)
    command = [sys.executable, "-c", SCRIPT, str(digits), str(ROOT), "30"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert files(digits / "data/prepared/digits") == before
    left = [path.name for path in (digits / "data/prepared").iterdir() if path.name != "digits"]
    assert len(left) == 1
    assert left[0].startswith(".digits.")
    prepare("digits", root=digits)
    assert [path.name for path in (digits / "data/prepared").iterdir()] == ["digits"]


def test_damaged_prepared_data(digits: Path) -> None:
    prepare("digits", root=digits)
    folder = digits / "data/prepared/digits"
    again = "Run `fivefold prepare --dataset digits`"
    with pytest.raises(FileNotFoundError, match="Run `fivefold prepare --dataset nothing`"):
        Dataset.open(digits / "data/prepared/nothing")
    shard = folder / "val-00000.arrow"
    body = bytearray(shard.read_bytes())
    body[len(body) // 2] ^= 1
    shard.write_bytes(body)
    data = Dataset.open(folder)
    for use in (lambda: data.split("val").all(), lambda: data.split("val").take([0]), data.verify):
        with pytest.raises(ValueError, match=r"val-00000.arrow is damaged: its SHA-256 is"):
            use()
    assert len(data.split("train").all()) == 1258
    shard.write_bytes(body[:-1])
    with pytest.raises(ValueError, match=f"expected 15722 bytes, got 15721. {again}"):
        Dataset.open(folder)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"val-00000.arrow is missing. {again}"):
        Dataset.open(folder)
    text = (folder / "manifest.json").read_text()
    for broken in ("", text[:100], "[]", text.replace('"0",', '"zero",')):
        (folder / "manifest.json").write_text(broken)
        with pytest.raises(ValueError, match=f"manifest.json is damaged.*{again}"):
            Dataset.open(folder)
    (folder / "manifest.json").write_text(json.dumps({**json.loads(text), "schema": 99}))
    with pytest.raises(ValueError, match="has schema 99, this program reads up to 1"):
        Dataset.open(folder)


def test_a_faulty_card_names_every_fault(digits: Path) -> None:
    card = digits / "data/catalog/digits.yaml"
    text = card.read_text()
    card.write_text(
        text.replace("kind: image", "kind: picture")
        .replace("levels: 17", "lvels: 17")
        .replace("seed: 0", "seed: zero")
        .replace("duplicates: separate", "duplicate: separate")
    )
    with pytest.raises(ValueError, match="fault") as caught:
        load_card("digits", digits)
    for fragment in (
        "digits.yaml has 4 faults", "image.lvels: unknown key; did you mean levels?",
        "splits.seed: must be a whole number, got 'zero'", "duplicate: unknown key; did you mean duplicates?",
    ):  # fmt: skip
        assert fragment in str(caught.value)
    card.write_text(text.replace("8\n  width: 8", "-8\n  width: 8").replace("train: 0.7", "train: 0.8"))
    with pytest.raises(ValueError, match=r"image.height must be at least 1, got -8; splits: .*must not exceed 1"):
        load_card("digits", digits)
    card.write_text("name: digits\nname: again\n")
    with pytest.raises(ValueError, match=r"gives name twice \(line 2"):
        load_card("digits", digits)
    card.write_text(text.replace("sha256: 87ff", "sha256: 97ff"))
    with pytest.raises(ValueError, match=r"digits have SHA-256 87ff.*the card 'digits' says 97ff"):
        prepare("digits", root=digits)
    with pytest.raises(FileNotFoundError, match=r"no dataset 'digit'.*Did you mean 'digits'"):
        prepare("digit", root=digits)


def test_a_card_without_checksum_is_told_it(tmp_path: Path) -> None:
    source = image_archive(tmp_path, 30)
    add(str(source), "d", root=tmp_path, quiet=True)
    card = tmp_path / "data/catalog/d.yaml"
    lines = [line for line in card.read_text().splitlines() if "sha256" not in line]
    card.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"add `sha256: [0-9a-f]{64}` under source"):
        prepare("d", root=tmp_path)
    source.unlink()
    with pytest.raises(FileNotFoundError, match=r"images.zip does not exist. Put it there, or fix source.path"):
        prepare("d", root=tmp_path)


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may read and write anything: as root, go on as nobody for a while."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_no_permission(digits: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        root = Path(name) / "project"
        shutil.copytree(digits, root)
        prepare("digits", root=root)  # imports what it needs while it may
        before = files(root / "data/prepared/digits")
        source = image_archive(root, 30).with_suffix("").parent / "source"
        Path(name).chmod(0o755)
        locked = (root / "data/prepared", root / "data/catalog", root / "data")
        for folder in locked:
            folder.chmod(0o555)
        for path, expected in ((root / "data/prepared/digits", "data/prepared/.digits"), (root / "out/new", "out")):
            root.chmod(0o555)
            with ordinary_user(), pytest.raises(PermissionError, match="Permission denied") as caught:
                prepare("digits", path, root=root)
            assert expected in str(caught.value)
        with ordinary_user(), pytest.raises(PermissionError, match=r"Permission denied: .*catalog"):
            add(str(source), "d", root=root, quiet=True)
        (source / "1").chmod(0)
        with ordinary_user(), pytest.raises(PermissionError, match=r"Permission denied: .*source/1"):
            add(str(source), "d", root=root, quiet=True)
        (source / "1").chmod(0o755)
        (source / "1/1.png").chmod(0)
        with ordinary_user(), pytest.raises(PermissionError, match=r"Permission denied: .*source/1/1.png"):
            add(str(source), "d", root=root, quiet=True)
        for folder in (root, *locked):
            folder.chmod(0o755)
        assert files(root / "data/prepared/digits") == before
        assert [path.name for path in (root / "data/prepared").iterdir()] == ["digits"]


def test_a_file_too_large_for_the_disk(digits: Path) -> None:
    """What the system refuses while a shard is written is said with its place, and leaves nothing behind."""
    prepare("digits", root=digits)
    before = files(digits / "data/prepared/digits")
    code = (
        "import resource, signal, sys; from pathlib import Path; from pipelines.stages.prepare import prepare\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "prepare('digits', root=Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    tried = subprocess.run([sys.executable, "-c", code, str(digits)], env=environment, capture_output=True, text=True)
    assert "File too large: " in tried.stderr
    assert "data/prepared/digits" in tried.stderr.splitlines()[-1]
    assert files(digits / "data/prepared/digits") == before
    assert [path.name for path in (digits / "data/prepared").iterdir()] == ["digits"]


def test_importing_does_no_work(tmp_path: Path) -> None:
    """The worker's modules and the stage import without torch, and leave no trace."""
    start = time.perf_counter()
    heavy = "{'torch', 'ray', 'mlflow', 'sklearn'}"
    code = f"import sys, pipelines.stages.prepare; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert not list(tmp_path.iterdir())
    assert time.perf_counter() - start < 60
