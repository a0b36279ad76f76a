"""What our wrapping costs over a bare PyTorch loop, and what a second worker brings. Run it on an idle machine.

    python benchmarks/overhead.py [--dataset digits] [--families vae diffusion] [--seconds 30] [--repeats 3]

`bare` is the loop one writes by hand: batch, objective, backward, clip, step. `loop` is `pipelines.training.loop`,
called directly, with averaged weights, finiteness checks, curves and checkpoints. `1 worker` and `2 workers` are the
same loop through Ray Train, as the stage `train` runs it, a thread per worker. `2 apart` are two bare loops at the
same time, each on half a batch, that never speak to each other: what the machine itself allows two workers. All see
batches of the same prepared dataset (`fivefold prepare`, `fivefold features` first). Rates leave out starting, and
what follows the last step.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from data.dataset import Dataset  # noqa: E402
from models import FAMILIES, Streams  # noqa: E402
from pipelines import config  # noqa: E402
from pipelines.execution.jobs import make_job  # noqa: E402
from pipelines.paths import prepared_folder  # noqa: E402
from pipelines.training import loop  # noqa: E402
from pipelines.training.config import TrainingConfig  # noqa: E402
from pipelines.training.context import WorkerContext  # noqa: E402
from pipelines.training.job import TrainingJob, read_metrics  # noqa: E402
from pipelines.training.worker import TrainingData, build_model, run_worker  # noqa: E402

REPORTS = 12
"""Reports of a run: the first and the last interval are not counted."""


def bare(job: TrainingJob, steps: int) -> float:
    """Examples per second of a loop without anything around it."""
    settings = TrainingConfig(**job.training)
    data = TrainingData(Dataset.open(job.prepared), settings, job.seed, "cpu")
    model = build_model(job)
    model.initialize(data.reference(), Streams.seeded(job.seed))
    objectives = model.objectives()
    optimizers = [torch.optim.AdamW(o.parameters(), settings.lr, fused=True) for o in objectives]
    noise = Streams.seeded(job.seed)
    dtype = loop.resolve_precision(settings.precision, "cpu")
    first = steps // REPORTS
    for step in range(steps - first):
        if step == first:
            started = time.perf_counter()
        batch = data.batch(step, 0, 1)
        for objective, optimizer in zip(objectives, optimizers, strict=True):
            if step % objective.every:
                continue
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                loss = objective(batch, noise).total.mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(objective.parameters(), settings.grad_clip or float("inf"))
            optimizer.step()
    return (steps - 2 * first) * settings.batch_size / (time.perf_counter() - started)


def apart(job: TrainingJob, steps: int) -> float:
    """Examples per second of two such loops side by side, each on half a batch."""
    half = {**job.training, "batch_size": job.training["batch_size"] // 2}
    with multiprocessing.get_context("spawn").Pool(2, torch.set_num_threads, (1,)) as pool:
        return sum(pool.starmap(bare, [(dataclasses.replace(job, training=half), steps)] * 2))


def recorded(job: TrainingJob) -> float:
    """Examples per second between the first report of a training and the last but one."""
    made = read_metrics(Path(job.state))
    first, last = made[0], made[-2]
    return (last["examples"] - first["examples"]) / (last["seconds"] - first["seconds"])


def in_process(job: TrainingJob) -> float:
    """Examples per second of our loop, called directly."""
    run_worker(dataclasses.asdict(job), WorkerContext())
    return recorded(job)


def through_ray(job: TrainingJob, workers: int) -> float:
    """Examples per second of our loop in workers of Ray Train, one thread each."""
    from pipelines import cluster

    with cluster.connected():
        cluster.run_workers(
            run_worker,
            dataclasses.asdict(job),
            workers=workers,
            threads=1,
            storage=Path(job.state) / "ray",
            max_failures=0,
        )
    return recorded(job)


def job_in(state: Path, settings: config.Params, family: str, wanted: config.Family, data: Dataset) -> TrainingJob:
    """A training with checkpoints beside its state."""
    job = make_job(settings, family, wanted, data, state)
    return dataclasses.replace(job, checkpoints=str(state / "checkpoints"))


def main() -> None:
    """Measure the families asked for, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--seconds", type=float, default=30, help="of each run")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    settings = config.load(dataset=chosen.dataset)
    data = Dataset.open(prepared_folder(chosen.dataset))
    heads = ("family", "bare, examples/s", "loop", "1 worker", "2 workers", "2 apart", "cost of 1 worker")
    print("|", " | ".join((*heads, "efficiency of 2", "of what the machine allows")), "|")
    print("|", " | ".join(["---"] * (len(heads) + 2)), "|")
    for family in chosen.families:
        found: dict[str, list[float]] = {"bare": [], "loop": [], "1": [], "2": [], "apart": []}
        steps = 10 * REPORTS
        for repeat in range(chosen.repeats + 1):
            training = dataclasses.replace(
                settings.family[family].training,
                total_examples=steps * settings.family[family].training.batch_size,
                reports=REPORTS,
                evaluations=1,
                checkpoints=max(1, round(chosen.seconds / 60)),
            )
            with tempfile.TemporaryDirectory() as folder:
                wanted = dataclasses.replace(settings.family[family], training=training)
                jobs = {name: job_in(Path(folder) / name, settings, family, wanted, data) for name in found}
                rate = bare(jobs["bare"], steps)
                if not repeat:  # only to learn how many steps the seconds allow
                    steps = REPORTS * max(10, round(rate * chosen.seconds / training.batch_size / REPORTS))
                    continue
                found["bare"].append(rate)
                found["loop"].append(in_process(jobs["loop"]))
                found["1"].append(through_ray(jobs["1"], 1))
                found["2"].append(through_ray(jobs["2"], 2))
                found["apart"].append(apart(jobs["apart"], steps))
        rates = {name: median(values) for name, values in found.items()}
        cost, efficiency = 1 - rates["1"] / rates["bare"], rates["2"] / (2 * rates["1"])
        print(
            f"| {family} | "
            + " | ".join(f"{rate:,.0f}" for rate in rates.values())
            + f" | {cost:.1%} | {efficiency:.0%} | {rates['2'] / rates['apart']:.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
