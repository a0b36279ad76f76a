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
from specialists import SPECIALISTS, to_pixels  # noqa: E402

from data.shards import Dataset  # noqa: E402
from models import Streams, build  # noqa: E402
from models.domains import domain  # noqa: E402
from pipelines import loop  # noqa: E402
from pipelines.evaluation.distribution import frechet  # noqa: E402
from pipelines.evaluation.likelihood import bits_per_dim  # noqa: E402
from pipelines.evaluation.space import Yardstick  # noqa: E402
from pipelines.worker import TrainingData  # noqa: E402

SAMPLES = 1_000
"""Images drawn from each model; as many real ones are compared with."""


def quality(data: Dataset, judge: Yardstick, family: str, side: str, clock: Clock, seed: int) -> dict[str, Any]:
    """Train one side by its own recipe for the budget; how far its samples are from the test images."""
    torch.manual_seed(seed)
    if side == "ours":
        model = ours.train(family, ours.recipe(family), data, clock, seed)
        x, parameters = ours.sample(model, SAMPLES, seed), sum(p.numel() for p in model.parameters())
    else:
        specialist = SPECIALISTS[family]()
        train = data.split("train").all()
        specialist.train(train.x.permute(0, 3, 1, 2).float() / 255, train.label, clock)
        x = to_pixels(specialist.sample(SAMPLES))
        parameters = sum(p.numel() for player in specialist.players() for p in player.network.parameters())
    found: dict[str, Any] = {}
    if family == "flow":
        test, noise = data.split("test").all(), Streams.seeded(seed)
        found["bits_per_dim"] = (
            bits_per_dim(torch.cat([model.log_prob(part, noise) for part in test.x.split(250)]).numpy(), 784).mean()
            if side == "ours"
            else specialist.bits_per_dim(test.x.permute(0, 3, 1, 2).float() / 255, test.label)
        )
    space = judge.spaces["classifier"]
    distance = frechet(space.features(x), space.rows["test"])
    return found | {"frechet": distance, "spent": clock.spent, "examples": clock.examples, "parameters": parameters}


def throughput(data: Dataset, family: str, side: str, clock: Clock, seed: int) -> dict[str, Any]:
    """Examples per second of the specialist's networks: in its own loop, or in ours at a precision.

    Invertible layers are not safe in low precision: of the flow ours is our own Glow of the same size.
    """
    torch.manual_seed(seed)
    specialist = SPECIALISTS[family]()
    train = data.split("train").all()
    if side == "theirs":
        specialist.train(train.x.permute(0, 3, 1, 2).float() / 255, train.label, clock)
        return {"rate": clock.examples / clock.spent}
    batch = specialist.batch - specialist.batch % 4
    few = loop.Settings(
        total_examples=20 * batch, batch_size=batch, virtual_ranks=4, grad_clip=0, reports=4, evaluations=1,
        precision=side,  # type: ignore[arg-type]
    )  # fmt: skip

    def seconds(steps: int) -> float:
        """Of so many steps, what comes before and after them left out."""
        settings = dataclasses.replace(few, total_examples=(steps + 20) * batch, reports=(steps + 20) // 10)
        kind = domain(data.domain)
        if family == "flow":
            config = {"steps": 8, "levels": 2, "width": 64}
            model = build({"family": "flow", "config": config, "domain": data.domain, "classes": 10})
        else:
            model = Borrower(specialist, kind)
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
    data = Dataset.open(root / "data" / "prepared" / mnist.NAME)
    clock = Clock(asked["seconds"], cpu=asked["cpu"])
    who = {"family": asked["family"], "side": asked["side"], "clock": clock, "seed": asked["seed"]}
    found = throughput(data, **who) if asked["measure"] == "throughput" else quality(data, mnist.judge(root), **who)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
