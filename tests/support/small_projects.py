"""Small projects on data whose truth is known (`truth.py`), from their file to the registry, made once a session.

All but the training goes through the command line's own `main`; the training through its loop, for
Ray takes twenty seconds to start. The whole way, by `dvc repro`, is in `test_front_door.py`, marked slow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from truth import GAPS, NAMES, Patterns, Rows

from data.dataset import Dataset
from models import build
from pipelines import tracking
from pipelines.__main__ import main
from pipelines.stages.report import report
from pipelines.storage import model_folder
from pipelines.training import loop
from pipelines.training.config import TrainingConfig
from pipelines.training.worker import TrainingData

MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "shop": {"vae": {"latent": 8, "width": 32}, "flow": {"width": 40}},
    "tiles": {"flow": {"steps": 3, "width": 24}, "diffusion": {"width": 16}},
}
"""What each small project trains."""


def write_source(name: str, folder: Path, n: int) -> list[str]:
    """Draw a dataset from its truth, write its file, and say how `fivefold data add` is told of it."""
    random = np.random.default_rng(0)
    if name == "tiles":
        x, c = Patterns().draw(n, random)
        np.savez(folder / "tiles.npz", images=x, labels=c)
        return ["data", "add", "tiles.npz", "--name", "tiles"]
    rows, c = Rows().draw(n, random)
    Rows().with_gaps(rows, GAPS, random).assign(tier=np.array(NAMES)[c]).to_csv(folder / "shop.csv", index=False)
    return ["data", "add", "shop.csv", "--name", "shop", "--label", "tier"]


def edit_card(name: str, root: Path) -> None:
    """What a person adds to the card: how many grey levels there are."""
    card = root / f"data/catalog/{name}.yaml"
    card.write_text(card.read_text().replace("levels: 256", f"levels: {Patterns().levels}"))


@dataclass(frozen=True)
class SmallProject:
    """A project's folder and its registry."""

    root: Path
    name: str

    @contextmanager
    def entered(self) -> Iterator[Path]:
        """Work in it as its user does: in its folder, with its MLflow store."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{self.root}/mlflow.db")
            tracking.connect()
            yield self.root


def made(root: Path, name: str) -> SmallProject:
    """A project in which a dataset went from its file to registry and report; `root` holds an empty MLflow store."""
    project = SmallProject(root, name)
    families = MODELS[name]
    (root / "params.yaml").write_text(
        f"dataset: {name}\nseed: 0\nfamilies: [{', '.join(families)}]\n"
        "features: {examples: 4000, samples: 400, bootstrap: 20, components: [4]}\n"
        "evaluate: {samples: 400, bootstrap: 20}\n" + "".join(f"{family}: {{}}\n" for family in families)
    )
    with project.entered():
        assert main(write_source(name, root, 2_000)) == 0
        edit_card(name, root)
        assert main(["prepare"]) == 0
        assert main(["features"]) == 0
        for family, config in families.items():
            train(root, name, family, config)
            assert main(["evaluate", "--family", family]) == 0
        assert main(["register"]) == 0
        report(name, list(families), root=root)
    return project


def train(root: Path, name: str, family: str, config: Mapping[str, Any]) -> None:
    """Train some seconds, without Ray, and leave a finished model with its run."""
    data = Dataset.open(root / "data/prepared" / name)
    spec = {"family": family, "config": config, "domain": data.domain, "classes": len(data.class_names)}
    torch.manual_seed(0)
    settings = TrainingConfig(total_examples=45_000, batch_size=128, lr=2e-3, evaluations=1, reports=2)
    model = loop.train(build(spec), TrainingData(data, settings, 0, "cpu"), settings, seed=0, report=lambda _: None)
    with tracking.TrainingRun.open(
        dataset=name, family=family, run_key=family, params={}, manifest=data.manifest
    ) as run:
        run.log([{"examples": settings.total_examples, "metrics": {"loss": 1.0}}])
    facts = {**spec, "dataset": name, "class_names": data.class_names, "data_digest": data.digest}
    facts |= {key: data.manifest[key] for key in ("table", "constraints") if key in data.manifest}
    model_folder.save(model, root / "runs" / name / "models" / family, facts | {"run_id": run.run_id})
