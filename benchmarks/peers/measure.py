"""One measurement in a process of its own: `python measure.py '{"family": "vae", ...}'` prints its result as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import mnist  # noqa: E402
import ours  # noqa: E402
import torch  # noqa: E402
from borrowed import Borrower  # noqa: E402
from clock import Clock  # noqa: E402
from specialists import SPECIALISTS, Glow, Specialist, SplineFlow, to_pixels  # noqa: E402
from torch import Tensor  # noqa: E402

from data.dataset import Dataset  # noqa: E402
from models import Streams, build  # noqa: E402
from models.domains import domain  # noqa: E402
from pipelines.evaluation.metrics.distribution import frechet  # noqa: E402
from pipelines.evaluation.metrics.likelihood import bits_per_dim  # noqa: E402
from pipelines.evaluation.reference.reference import Reference  # noqa: E402
from pipelines.training import loop  # noqa: E402
from pipelines.training.config import TrainingConfig  # noqa: E402
from pipelines.training.worker import TrainingData  # noqa: E402

SAMPLES = 1_000
"""Images drawn from each model; as many real ones are compared with."""


def specialist_of(data: Dataset, family: str) -> tuple[Specialist, tuple[Tensor, Tensor]]:
    """A family's specialist, and the training data as it takes them."""
    specialist = SPECIALISTS[family]()
    train = data.split("train").all()
    inputs = specialist.inputs(train.x)
    if isinstance(specialist, SplineFlow):
        specialist.look(inputs, specialist.inputs(data.split("val").all().x))
    return specialist, (inputs, train.label)


def quality(data: Dataset, judge: Reference, family: str, side: str, clock: Clock, seed: int) -> dict[str, Any]:
    """Train one side by its own recipe for the budget; how far its samples are from the test images.

    Of columns: the negative log-density of the test rows.
    """
    torch.manual_seed(seed)
    specialist, inputs = specialist_of(data, family)
    model = ours.train(family, ours.recipe(family), data, clock, seed) if side == "ours" else None
    if model is None:
        specialist.train(*inputs, clock)
        parameters = sum(p.numel() for player in specialist.players() for p in player.network.parameters())
    else:
        parameters = sum(p.numel() for p in model.parameters())
    found: dict[str, Any] = {"spent": clock.spent, "examples": clock.examples, "parameters": parameters}
    test, noise = data.split("test").all(), Streams.seeded(seed)
    if isinstance(specialist, SplineFlow):
        return found | {"nats": ours.nats(model, data, "test", seed) if model else specialist.nats(test.x.float())}
    if isinstance(specialist, Glow):
        found["bits_per_dim"] = (
            bits_per_dim(torch.cat([model.log_prob(part, noise) for part in test.x.split(250)]).numpy(), 784).mean()  # type: ignore[attr-defined]
            if model
            else specialist.bits_per_dim(specialist.inputs(test.x), test.label)
        )
    x = ours.sample(model, SAMPLES, seed) if model else to_pixels(specialist.sample(SAMPLES))
    space = judge.spaces["classifier"]
    return found | {"frechet": frechet(space.features(x), space.rows["test"])}


def throughput(data: Dataset, family: str, side: str, clock: Clock, seed: int) -> dict[str, Any]:
    """Examples per second of the specialist's networks: in its own loop, or in ours at a precision.

    Invertible layers are not safe in low precision: of Glow it is our own of the same size that is taken in bfloat16.
    """
    torch.manual_seed(seed)
    specialist, inputs = specialist_of(data, family)
    if side == "theirs":
        specialist.train(*inputs, clock)
        return {"rate": clock.examples / clock.spent}
    batch = specialist.batch - specialist.batch % 4
    few = TrainingConfig(
        total_examples=20 * batch, batch_size=batch, virtual_ranks=4, grad_clip=0, reports=4, evaluations=1,
        precision=side,  # type: ignore[arg-type]
    )  # fmt: skip

    def seconds(steps: int) -> float:
        """Of so many steps, what comes before and after them left out."""
        settings = dataclasses.replace(few, total_examples=(steps + 20) * batch, reports=(steps + 20) // 10)
        kind = domain(data.domain)
        if family == "flow" and side == "bf16":
            config = {"steps": 8, "levels": 2, "width": 64}
            model = build({"family": "flow", "config": config, "domain": data.domain, "classes": 10})
        else:
            model = Borrower(specialist, kind, len(data.class_names))
        marks = []
        loop.train(
            model, TrainingData(data, settings, seed, "cpu"), settings, seed=seed,
            report=lambda _: marks.append(clock.elapsed),
        )  # fmt: skip
        return marks[-2] - marks[0]

    steps = 10 * max(1, round(clock.seconds / seconds(10)))
    return {"rate": steps * batch / seconds(steps)}


def main() -> None:
    """Do what the command line's JSON asks for."""
    asked = json.loads(sys.argv[1])
    warnings.simplefilter("ignore")
    torch.set_num_threads(asked["threads"])
    root = Path(asked["root"])
    data = Dataset.open(root / "data" / "prepared" / (mnist.ROWS if asked["family"] == "columns" else mnist.NAME))
    clock = Clock(asked["seconds"], cpu=asked["cpu"])
    who = {"family": asked["family"], "side": asked["side"], "clock": clock, "seed": asked["seed"]}
    found = throughput(data, **who) if asked["measure"] == "throughput" else quality(data, mnist.judge(root), **who)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
