"""The command `evaluate`."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from pipelines.cli.options import DatasetName, FamilyName, Verbose

log = logging.getLogger(__name__)


def evaluate(family: FamilyName, dataset: DatasetName = None, verbose: Verbose = False) -> None:
    """Measure a trained family by the yardstick, or go on where that was interrupted."""
    from data.cards import find_card
    from data.dataset import Dataset
    from pipelines import config, tracking
    from pipelines.execution.jobs import family_settings
    from pipelines.execution.measuring import run_evaluation
    from pipelines.paths import prepared_folder, runs_folder
    from pipelines.serving import artifact
    from pipelines.stages.evaluate import evaluate

    settings = config.load(dataset=dataset)
    find_card(settings.dataset, Path())
    family_settings(settings, family)
    chosen, folder = settings.evaluate, runs_folder(settings.dataset)
    Dataset.open(prepared_folder(settings.dataset))
    artifact.check(folder / "models" / family)  # before a store is made for what is not there
    tracking.connect()
    measured = evaluate(
        settings.dataset,
        family,
        samples=chosen.samples,
        bootstrap=chosen.bootstrap,
        seed=settings.seed,
        run=partial(run_evaluation, settings=settings.cluster, verbose=verbose),
    )
    facts, _ = artifact.read(folder / "models" / family)
    pictures = {path.stem: path for path in sorted((folder / "results" / family).iterdir())}
    tracking.log_evaluation(facts["run_id"], measured, pictures)
    log.info("wrote %s", folder / "results" / f"{family}.json")
