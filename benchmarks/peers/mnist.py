"""MNIST's 10,000 test images as the benchmark uses them: 9,000 to train on, 1,000 to compare with.

Once as images, and once as rows: the 16 leading principal components, real numbers without ties.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA

from data.dataset import Dataset
from pipelines.cli.data import add
from pipelines.evaluation.config import ReferenceConfig
from pipelines.evaluation.reference.reference import Reference
from pipelines.stages.features import features
from pipelines.stages.prepare import prepare

NAME = "mnist-10k"

ROWS = "mnist-10k-rows"

COLUMNS = 16


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


def prepared_rows(root: Path, images: Dataset) -> Dataset:
    """The images' leading principal components as a table, in the same splits; a tenth of the rows to learn from is
    kept out, for either side to tell when to stop."""
    folder = root / "data" / "prepared" / ROWS
    if not (folder / "manifest.json").exists():
        train, test = (images.split(name).all().x.flatten(1).double().numpy() for name in ("train", "test"))
        rows = PCA(COLUMNS, random_state=0).fit(train).transform(np.concatenate([train, test]))
        table = root / f"{ROWS}.csv"
        header = ",".join(f"component{number}" for number in range(COLUMNS))
        np.savetxt(table, rows, delimiter=",", fmt="%.6f", header=header, comments="")
        card = root / "data" / "catalog" / f"{ROWS}.yaml"
        card.unlink(missing_ok=True)
        add(str(table), ROWS, root=root, quiet=True)
        cut, end = round(0.9 * len(train)), len(rows)
        splits = f"splits:\n  rows: {{train: [0, {cut}], val: [{cut}, {len(train)}], test: [{len(train)}, {end}]}}"
        card.write_text(re.sub(r"^splits:.*$", splits, card.read_text(encoding="utf-8"), flags=re.MULTILINE))
        prepare(ROWS, root=root)
    return Dataset.open(folder)


def judge(root: Path) -> Reference:
    """Who compares: a classifier that neither side sees, with the floor and the classical baseline in its space."""
    folder = root / "runs" / NAME / "yardstick"
    if not (folder / "yardstick.json").exists():
        features(NAME, seed=20261121, settings=ReferenceConfig(samples=1_000), root=root)
    return Reference.open(folder)
