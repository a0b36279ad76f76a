"""The stage `evaluate`: measure a finished model with the yardstick, in everything it can do.

A family is never named here: what is measured follows from the capabilities its model has. Every
number stands beside its floor (what real examples score) and the classical baseline's, computed by
the same functions on as many rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.files import whole_folder, write_json
from pipelines.evaluation.evaluator import Evaluator
from pipelines.evaluation.reference.reference import Reference
from pipelines.evaluation.use_cases import headline
from pipelines.serving import artifact
from pipelines.storage import model_folder

if TYPE_CHECKING:
    from data.dataset import Dataset


def evaluate(
    dataset: str,
    family: str,
    *,
    samples: int = 2_000,
    seed: int = 0,
    bootstrap: int = 200,
    bound_samples: int = 64,
    device: str = "cpu",
    root: str | Path = ".",
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
        device: Where the model runs.
        root: The project's folder.
    Returns:
        What the JSON file says.
    Raises:
        FileNotFoundError: If the data, the yardstick or the model is missing.
        ValueError: If one of them was altered, they do not belong together, or the model's answers
            are not finite.
        OSError: If the results cannot be written.
    """
    from data.dataset import Dataset

    folder = Path(root) / "runs" / dataset
    prepared = Dataset.open(Path(root) / "data" / "prepared" / dataset)
    reference = Reference.open(folder / "yardstick")
    model, facts = model_folder.load(folder / "models" / family, device)
    _require_data(folder, prepared, {"yardstick": reference.facts, f"model {family}": facts})
    measuring = Evaluator(
        model, prepared, reference, samples=samples, seed=seed, bootstrap=bootstrap, bound_samples=bound_samples
    )
    with whole_folder(folder / "results" / family) as pictures:
        measured = measuring.run(pictures)
    result = {
        "family": family,
        "dataset": dataset,
        "data_digest": prepared.digest,
        "yardstick_digest": reference.digest,
        "model_digest": artifact.model_digest(folder / "models" / family),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
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
