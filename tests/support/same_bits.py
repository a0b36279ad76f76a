"""From a table to draws of a model, in a process of its own: prints a digest of whatever was made on the way."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import torch

from data.dataset import Dataset
from data.files import sha256
from data.readers.base import here
from models import Streams, build
from pipelines.cli.data import add
from pipelines.stages.prepare import prepare
from pipelines.storage import model_folder
from pipelines.training import loop
from pipelines.training.config import TrainingConfig
from pipelines.training.worker import TrainingData

if __name__ == "__main__":
    os.umask(int(sys.argv[1], 8))
    torch.set_num_threads(1)
    rows = "".join(
        f"{i},{i % 37 / 7:.3f},{'äxy'[i % 3]},2024-0{i % 9 + 1}-1{i % 9} 0{i % 10}:30,{['No', 'yes'][i * i % 2]}\n"
        for i in range(400)
    )
    Path("rows.csv").write_text("id,a,ü,when,c\n" + rows, encoding="utf-8")
    card = add("rows.csv", "rows", label="c", quiet=True, mapper=here)
    print("card", sha256(card))
    print("data", prepare("rows", mapper=here)["digest"])
    for path in sorted(Path("data/prepared/rows").iterdir()):
        print(path.name, sha256(path))
    data = Dataset.open("data/prepared/rows")
    spec = {"family": "vae", "config": {"latent": 4, "width": 8}, "domain": data.domain, "classes": 2}
    torch.manual_seed(0)
    settings = TrainingConfig(total_examples=2_000, batch_size=64, warmup_examples=0, evaluations=1, reports=1)
    model = loop.train(build(spec), TrainingData(data, settings, 0, "cpu"), settings, seed=0, report=lambda _: None)
    print("model", model_folder.save(model, "model", {**spec, "data_digest": data.digest}))
    drawn = model.sample(20, None, Streams.seeded(1))
    print("draws", hashlib.sha256(drawn.numpy().tobytes()).hexdigest())
