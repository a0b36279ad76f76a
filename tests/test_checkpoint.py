"""Checkpoints: whole or absent, never loaded when damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from pipelines import checkpoint

TENSORS = {"a": torch.arange(6.0), "b": torch.ones(2, 3, dtype=torch.int64)}


def test_what_was_saved_comes_back(tmp_path):
    checkpoint.save(tmp_path, 3, TENSORS, {"best": 0.5})
    tensors, facts = checkpoint.load_newest(tmp_path)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert (facts["step"], facts["best"]) == (3, 0.5)


def test_nothing_saved_is_none(tmp_path):
    assert checkpoint.load_newest(tmp_path) is None


def test_only_the_newest_are_kept(tmp_path):
    for step in range(5):
        checkpoint.save(tmp_path, step, TENSORS, {}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000000003", "step-0000000004"]


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.FACTS, checkpoint.MANIFEST])
@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, name, harm):
    checkpoint.save(tmp_path, 1, TENSORS, {})
    checkpoint.save(tmp_path, 2, TENSORS, {})
    path = tmp_path / "step-0000000002" / name
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 0x04
    path.unlink()
    if harm != "remove":
        path.write_bytes({"flip": content, "truncate": content[:-3], "empty": b""}[harm])
    with pytest.warns(UserWarning, match="falling back"):
        _, facts = checkpoint.load_newest(tmp_path)
    assert facts["step"] == 1
    assert (tmp_path / "corrupt-step-0000000002").exists()


def test_when_all_are_damaged_training_does_not_silently_restart(tmp_path):
    checkpoint.save(tmp_path, 1, TENSORS, {})
    (tmp_path / "step-0000000001" / checkpoint.TENSORS).write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="set aside"),
        pytest.raises(checkpoint.CorruptCheckpoint, match="every checkpoint"),
    ):
        checkpoint.load_newest(tmp_path)
    with pytest.raises(checkpoint.CorruptCheckpoint, match="every checkpoint"):  # nor at the second try
        checkpoint.load_newest(tmp_path)


def test_a_newer_schema_is_refused(tmp_path):
    folder = checkpoint.save(tmp_path, 1, TENSORS, {})
    facts = json.loads((folder / checkpoint.FACTS).read_text())
    facts["schema"] = checkpoint.SCHEMA + 1
    (folder / checkpoint.FACTS).write_text(json.dumps(facts))
    hashes = {name: checkpoint.sha256(folder / name) for name in (checkpoint.TENSORS, checkpoint.FACTS)}
    (folder / checkpoint.MANIFEST).write_text(json.dumps(hashes))
    with pytest.raises(ValueError, match="newer Fivefold"):
        checkpoint.load_newest(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="a small file system needs root and mount")
def test_a_full_disk_leaves_the_previous_checkpoint_and_nothing_partial(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        checkpoint.save(tmp_path, 1, TENSORS, {})
        with pytest.raises(Exception, match=r"[Nn]o space left|os error 28"):
            checkpoint.save(tmp_path, 2, {"large": torch.zeros(1_000_000)}, {})
        assert [p.name for p in tmp_path.iterdir()] == ["step-0000000001"]
        assert checkpoint.load_newest(tmp_path)[1]["step"] == 1
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_kill_while_writing_leaves_the_previous_checkpoint(tmp_path):
    """A process writes checkpoints as fast as it can and is killed in the middle of it."""
    code = (
        "import sys, torch\nfrom pathlib import Path\nfrom pipelines import checkpoint\n"
        "step = 0\n"
        "while True:\n"
        "    checkpoint.save(Path(sys.argv[1]), step, {'x': torch.full((50_000,), float(step))}, {})\n"
        "    step += 1\n"
        "    print(step, flush=True)\n"
    )
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
            for _ in range(4):
                process.stdout.readline()
            process.kill()
        tensors, facts = checkpoint.load_newest(tmp_path)
        assert torch.equal(tensors["x"], torch.full((50_000,), float(facts["step"])))
