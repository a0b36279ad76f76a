"""Checkpoints: whole or absent, never loaded when damaged; on a disk and in a bucket."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import buckets
import pytest
import torch
from neighbours import open_to_others
from safetensors.torch import load_file

from data.files import sha256
from pipelines.storage.stores import MANIFEST, LocalStore, S3Store, Storage, open_store
from pipelines.training import checkpoint
from pipelines.training.checkpoint import DTYPES, AsyncCheckpointWriter, Checkpoint, load_newest, save
from pipelines.training.errors import CorruptCheckpoint

TENSORS = {"a": torch.arange(6.0), "b": torch.ones(2, 3, dtype=torch.int64)}
FILES = [checkpoint.TENSORS, checkpoint.FACTS, MANIFEST]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with buckets.serving(tmp_path_factory.mktemp("s3") / "log") as address:
        yield address


def use(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for name, value in {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "s"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(params=["disk", "bucket"])
def storage(request, tmp_path, monkeypatch) -> Storage:
    if request.param == "disk":
        return open_store(tmp_path / "checkpoints")
    use(monkeypatch, request.getfixturevalue("server"))
    return open_store(f"s3://bucket/{tmp_path.name}/checkpoints")


def made(step: int, tensors: dict = TENSORS, **facts: object) -> Checkpoint:
    return Checkpoint(step, tensors, facts)


def overwrite(storage: Storage, name: str, file: str, content: bytes | None) -> None:
    """Put other bytes in the place of a file, or remove it."""
    if isinstance(storage, LocalStore):
        (storage.root / name / file).unlink()
        if content is not None:
            (storage.root / name / file).write_bytes(content)
        return
    assert isinstance(storage, S3Store)
    if content is None:
        storage.files.delete_file(f"{storage.root}/{name}/{file}")
        return
    with storage.files.open_output_stream(f"{storage.root}/{name}/{file}") as target:
        target.write(content)


def harmed(content: bytes, harm: str) -> bytes | None:
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0x04
    return {"flip": bytes(flipped), "truncate": content[:-3], "empty": b"", "remove": None}[harm]


def test_what_was_saved_comes_back_in_every_type(storage):
    tensors = {str(dtype): torch.tensor([[1, 0, 1]]).to(dtype) for dtype in DTYPES}
    tensors |= {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4), "strided": torch.arange(6.0).view(2, 3).T}
    save(storage, made(3, tensors, best=0.5))
    found = load_newest(storage)
    assert (found.step, found.facts["best"]) == (3, 0.5)
    assert set(found.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def test_nothing_saved_is_none(storage):
    assert load_newest(storage) is None


def test_the_newest_and_the_best_are_kept(storage):
    for step in range(6):
        best = made(step, {"w": torch.full((2,), float(step))}, score=1.0) if step in (1, 2, 3) else None
        save(storage, made(step, best_step=min(step, 3)), best, keep=2)
    assert storage.names("step-") == ["step-0000000005", "step-0000000004"]
    assert storage.names("best-") == ["best-0000000003", "best-0000000002"]
    assert torch.equal(checkpoint.load_best(storage, 3).tensors["w"], torch.full((2,), 3.0))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(storage, name, harm):
    save(storage, made(1))
    damaged = save(storage, made(2))
    with storage.fetched(damaged) as folder:
        content = harmed((folder / name).read_bytes(), harm)
    overwrite(storage, damaged, name, content)
    if isinstance(storage, S3Store) and (name, harm) == (MANIFEST, "remove"):
        assert load_newest(storage).step == 1  # what has no manifest was never there
        return
    with pytest.warns(UserWarning, match=r"step-0000000002 is damaged.* set aside as corrupt-.* falling back"):
        found = load_newest(storage)
    assert found.step == 1
    assert storage.names("corrupt-step-") or isinstance(storage, S3Store)
    assert storage.names("step-") == ["step-0000000001"]


def test_when_all_are_damaged_training_does_not_silently_restart(storage):
    for step in (1, 2):
        overwrite(storage, save(storage, made(step)), checkpoint.TENSORS, b"")
    with pytest.warns(UserWarning, match="set aside"), pytest.raises(CorruptCheckpoint, match="every checkpoint"):
        load_newest(storage)
    with pytest.raises(CorruptCheckpoint, match="every checkpoint"):  # nor at the second try
        load_newest(storage)


@pytest.mark.parametrize(("schema", "told"), [(checkpoint.SCHEMA + 1, "a newer"), (checkpoint.SCHEMA - 1, "an older")])
def test_another_schema_is_refused(tmp_path, schema, told):
    name = save(open_store(tmp_path), made(1))
    facts = json.loads((tmp_path / name / checkpoint.FACTS).read_text()) | {"schema": schema}
    (tmp_path / name / checkpoint.FACTS).write_text(json.dumps(facts))
    rehash(tmp_path / name)
    with pytest.raises(ValueError, match=f"written by {told} Fivefold .*or delete the folder"):
        load_newest(open_store(tmp_path))
    assert (tmp_path / name).exists()


def rehash(folder: Path) -> None:
    hashes = {name: sha256(folder / name) for name in (checkpoint.TENSORS, checkpoint.FACTS)}
    (folder / MANIFEST).write_text(json.dumps(hashes))


class Exploit:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_is_never_loaded_even_with_a_manifest_that_vouches_for_it(tmp_path):
    save(open_store(tmp_path / "c"), made(1))
    folder = tmp_path / "c" / save(open_store(tmp_path / "c"), made(2))
    (folder / checkpoint.TENSORS).write_bytes(pickle.dumps(Exploit(tmp_path / "executed")))
    rehash(folder)
    with pytest.warns(UserWarning, match="damaged"):
        assert load_newest(open_store(tmp_path / "c")).step == 1
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_another_training_is_refused_with_what_differs():
    there = {"spec": {"family": "vae", "config": {"latent": 8}}, "seed": 0, "data": "d1"}
    here = {"spec": {"family": "vae", "config": {"latent": 16}}, "seed": 0, "data": "d2"}
    checkpoint.require_same(there, there, "x")
    with pytest.raises(ValueError, match=r"data: d1 there, d2 here; spec.config.latent: 8 there, 16 here"):
        checkpoint.require_same(there, here, "x")


def test_what_a_killed_process_left_is_invisible_and_tidied(storage):
    """A temporary folder half written, an old one half removed, an upload without its manifest."""
    save(storage, made(1))
    if isinstance(storage, LocalStore):
        shutil.copytree(storage.root / "step-0000000001", storage.root / ".step-0000000002.tmp")
        shutil.copytree(storage.root / "step-0000000001", storage.root / ".step-0000000000.old")
        (storage.root / ".step-0000000000.old" / MANIFEST).unlink()
    else:
        overwrite(storage, "step-0000000002", checkpoint.TENSORS, b"half of it")
    assert load_newest(storage).step == 1
    storage.remove_partial()
    left = (
        os.listdir(storage.root)
        if isinstance(storage, LocalStore)
        else {key.split("/")[0] for key in storage._keys("")}
    )
    assert list(left) == ["step-0000000001"]


def test_a_manifest_that_vouches_for_nothing_is_damaged(tmp_path):
    save(open_store(tmp_path), made(1))
    name = save(open_store(tmp_path), made(2))
    (tmp_path / name / MANIFEST).write_text("{}")
    with pytest.warns(UserWarning, match="step-0000000002 is damaged"):
        assert load_newest(open_store(tmp_path)).step == 1


class Waiting(LocalStore):
    """A disk that writes when it is told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.go = threading.Event()

    def install(self, name: str, fill: Callable[[Path], None]) -> None:
        self.go.wait(60)
        super().install(name, fill)


def test_writing_goes_on_behind_and_is_of_the_moment_it_was_asked(tmp_path):
    weight, rows = torch.zeros(2000), torch.arange(6.0).view(2, 3)
    disk = Waiting(tmp_path)
    with AsyncCheckpointWriter(disk) as writer:
        for step in range(1, 4):
            disk.go.clear()
            weight += 1
            writer.save(made(step, {"weight": weight, "columns": rows.T}))
            weight += 100  # the training goes on
            writer.check()
            disk.go.set()
            writer.wait()
            weight -= 100
    found = load_newest(open_store(tmp_path)).tensors
    assert torch.equal(found["weight"], torch.full((2000,), 3.0))
    assert torch.equal(found["columns"], rows.T)


def test_an_error_in_the_background_is_raised_by_the_next_call_and_at_the_end(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for ending in ("check", "leave"):
        with (  # noqa: PT012
            pytest.raises(OSError, match="file"),
            AsyncCheckpointWriter(open_store(tmp_path / "file" / "checkpoints")) as writer,
        ):
            writer.save(made(1))
            while ending == "check":
                writer.check()
                time.sleep(0.01)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="a small file system needs root and mount")
def test_a_full_disk_leaves_the_previous_checkpoint_and_nothing_partial(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        with (  # noqa: PT012
            pytest.raises(OSError, match=r"No space left on device"),
            AsyncCheckpointWriter(open_store(tmp_path)) as writer,
        ):
            writer.save(made(1))
            writer.save(made(2, {"large": torch.zeros(1_000_000)}))
        assert os.listdir(tmp_path) == ["step-0000000001"]
        assert load_newest(open_store(tmp_path)).step == 1
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_that_may_not_be_written_is_an_error_that_names_it(tmp_path):
    """In a process that is not root's, whoever runs the tests."""
    root = tmp_path / "closed"
    save(open_store(root), made(1))
    code = (
        "import os, sys, torch\nfrom pipelines.training.checkpoint import Checkpoint, save\n"
        "from pipelines.storage.stores import open_store\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "save(open_store(sys.argv[1]), Checkpoint(2, {'x': torch.zeros(2)}, {}))\n"
    )
    open_to_others(tmp_path)
    root.chmod(0o555)
    tried = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True)
    root.chmod(0o755)
    assert tried.returncode == 1
    assert f"PermissionError: [Errno 13] Permission denied: '{root}/" in tried.stderr
    assert os.listdir(root) == ["step-0000000001"]


def test_a_kill_while_writing_or_pruning_leaves_a_checkpoint(tmp_path):
    """A process writes checkpoints as fast as it can and is killed in the middle of it."""
    code = (
        "import sys, torch\nfrom pipelines.training.checkpoint import Checkpoint, save\n"
        "from pipelines.storage.stores import open_store\n"
        "step = 0\n"
        "while True:\n"
        "    save(open_store(sys.argv[1]), Checkpoint(step, {'x': torch.full((50_000,), float(step))}, {}))\n"
        "    step += 1\n"
        "    print(step, flush=True)\n"
    )
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
            for _ in range(4):
                process.stdout.readline()
            process.kill()
        found = load_newest(open_store(tmp_path))
        assert torch.equal(found.tensors["x"], torch.full((50_000,), float(found.step)))


def test_the_library_reads_what_we_write(tmp_path):
    checkpoint.write_tensors(tmp_path / "t.safetensors", TENSORS)
    read = load_file(tmp_path / "t.safetensors")
    assert all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)


def test_a_bucket_that_answers_500_resets_and_cuts_short_is_tried_again(server, tmp_path, monkeypatch):
    """Every third request fails one way or another; nothing is lost, and nothing was noticed."""
    faults = {0: "500", 3: "reset", 6: "cut"}
    with buckets.failing(server, lambda count, method: faults.get(count % 9, "") if count % 3 == 0 else "") as proxy:
        use(monkeypatch, proxy)
        storage = open_store(f"s3://bucket/{tmp_path.name}")
        for step in range(4):
            save(storage, made(step, {"x": torch.full((3_000_000,) if step == 3 else (10,), float(step))}))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = load_newest(storage)
    assert torch.equal(found.tensors["x"], torch.full((3_000_000,), 3.0))  # in several parts


def test_an_object_that_is_always_cut_short_is_asked_for_again_after_longer_and_longer(server, tmp_path, monkeypatch):
    use(monkeypatch, server)
    storage = open_store(f"s3://bucket/{tmp_path.name}")
    save(storage, made(1))
    listed, pauses = storage.files.get_file_info, []

    def cut(_: str) -> None:
        raise OSError("cut short")

    storage.files = SimpleNamespace(get_file_info=listed, open_input_stream=cut)
    monkeypatch.setattr("data.s3.ATTEMPTS", 4)
    monkeypatch.setattr("pipelines.storage.stores.time", SimpleNamespace(sleep=pauses.append))
    with pytest.raises(OSError, match="cut short"):
        load_newest(storage)
    assert len(pauses) == 3
    assert 0 < pauses[0] < pauses[1] < pauses[2]


@pytest.mark.parametrize("sent", [0, 2])
def test_a_bucket_that_goes_away_is_an_error_and_the_previous_checkpoint_stays(server, tmp_path, monkeypatch, sent):
    """Also when two of the three files have arrived: what makes them a checkpoint is sent last."""
    use(monkeypatch, server)
    save(open_store(f"s3://bucket/{tmp_path.name}"), made(1))
    writes = itertools.count()
    with buckets.failing(
        server, lambda _, method: "500" if method in ("PUT", "POST") and next(writes) >= sent else ""
    ) as proxy:
        use(monkeypatch, proxy)
        monkeypatch.setattr("data.s3.ATTEMPTS", 2)
        with (
            pytest.raises(OSError, match=r"during PutObject"),
            AsyncCheckpointWriter(open_store(f"s3://bucket/{tmp_path.name}")) as writer,
        ):
            writer.save(made(2))
    use(monkeypatch, server)
    storage = open_store(f"s3://bucket/{tmp_path.name}")
    assert storage.names("step-") == ["step-0000000001"]
    storage.remove_partial()
    assert storage.names("step-") == ["step-0000000001"]
    assert load_newest(storage).step == 1
