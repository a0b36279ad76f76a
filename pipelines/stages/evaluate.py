"""The stage `evaluate`: measure a finished model with the yardstick, in everything it can do.

A family is never named here: what is measured follows from the capabilities its model has. Every
number stands beside its floor (what real examples score) and the classical baseline's, computed by
the same functions on as many rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data.dataset import Dataset
from data.files import recover, whole_folder, write_json
from pipelines.evaluation.reference.facts import checked_facts
from pipelines.evaluation.use_cases import headline
from pipelines.execution.evaluation import EvaluationJob, measure
from pipelines.serving import artifact


def evaluate(
    dataset: str,
    family: str,
    *,
    samples: int = 2_000,
    seed: int = 0,
    bootstrap: int = 200,
    bound_samples: int = 64,
    root: str | Path = ".",
    run: Callable[[EvaluationJob, Path], dict[str, Any]] = measure,
) -> dict[str, Any]:
    """Measure a finished model and write `runs/<dataset>/results/<family>.json`.

    Beside it the folder `<family>/` with pictures; and `runs/<dataset>/<family>.json`, a number for each job,
    for `dvc metrics`.

    Arguments:
        dataset: Name of the dataset.
        family: Which finished model, `runs/<dataset>/models/<family>/`.
        samples: Samples drawn.
        seed: Seed of samples, folds and resamples.
        bootstrap: Resamples behind each interval; 0 for no intervals.
        bound_samples: Draws behind each likelihood bound.
        root: The project's folder.
        run: What measures, given the job and an empty folder for pictures: in this process, on its CPU, unless told.
    Returns:
        What the JSON file says.
    Raises:
        FileNotFoundError: If the data, the yardstick or the model is missing.
        ValueError: If one of them was altered, they do not belong together, or the model's answers
            are not finite.
        OSError: If the results cannot be written.
    """
    folder = Path(root) / "runs" / dataset
    prepared = Dataset.open(Path(root) / "data" / "prepared" / dataset)
    yardstick, model = folder / "yardstick", folder / "models" / family
    reference = checked_facts(yardstick)
    recover(model)
    facts, _ = artifact.read(model)
    _require_data(folder, prepared, {"yardstick": reference, f"model {family}": facts})
    job = EvaluationJob(
        dataset=dataset,
        family=family,
        model=str(model),
        prepared=str(prepared.folder),
        yardstick=str(yardstick),
        samples=samples,
        seed=seed,
        bootstrap=bootstrap,
        bound_samples=bound_samples,
    )
    with whole_folder(folder / "results" / family) as pictures:
        measured = run(job, pictures)
    result = {
        "family": family,
        "dataset": dataset,
        "data_digest": prepared.digest,
        "yardstick_digest": reference["digest"],
        "model_digest": artifact.model_digest(model),
        **measured,
    }
    write_json(folder / f"{family}.json", headline(result["metrics"]))
    write_json(folder / "results" / f"{family}.json", result)
    return result


def _require_data(folder: Path, prepared: Dataset, stated: Mapping[str, Mapping[str, Any]]) -> None:
    """What was made from other data is refused."""
    for what, facts in stated.items():
        digest = facts.get("data_digest")
        if digest not in (None, prepared.digest):
            raise ValueError(
                f"The {what} in {folder} was made from other data: it states digest {digest}, {prepared.folder} "
                f"has {prepared.digest}. Run `dvc repro`, which makes again what is out of date."
            )
