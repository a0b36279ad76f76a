"""MNIST's 10,000 test images as the benchmark uses them: 9,000 to train on, 1,000 to compare with."""

from __future__ import annotations

import re
from pathlib import Path

from data.shards import Dataset
from pipelines.evaluation.space import Yardstick
from pipelines.features import Settings, features
from pipelines.prepare import add, prepare

NAME = "mnist-10k"


def prepared(root: Path, archive: Path) -> Dataset:
    """The prepared dataset in `root`, made from the archive (an image folder, zipped) where it is missing."""
    folder = root / "data" / "prepared" / NAME
    if not (folder / "manifest.json").exists():
        card = root / "data" / "catalog" / f"{NAME}.yaml"
        if not card.exists():
            add(str(archive.resolve()), NAME, root=root, quiet=True)
        text = card.read_text(encoding="utf-8")
        for split, share in (("train", 0.9), ("val", 0.0), ("test", 0.1)):
            text = re.sub(rf"^(  {split}:) [0-9.]+", rf"\1 {share}", text, flags=re.MULTILINE)
        card.write_text(text, encoding="utf-8")
        prepare(NAME, root=root)
    return Dataset.open(folder)


def judge(root: Path) -> Yardstick:
    """Who compares: a classifier that neither side sees, with the floor and the classical baseline in its space."""
    folder = root / "runs" / NAME / "yardstick"
    if not (folder / "yardstick.json").exists():
        features(NAME, seed=20261121, settings=Settings(samples=1_000), root=root)
    return Yardstick.open(folder)
