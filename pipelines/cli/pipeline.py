"""The command `pipeline`."""

from __future__ import annotations

import io
from pathlib import Path


def pipeline() -> None:
    """Write dvc.yaml for what params.yaml names: one dataset, or several side by side.

    With `datasets: [digits, adult]` there is a stage for each of them and each family: `dvc repro` runs all, `dvc repro
    report@adult` what one needs, and an experiment on one leaves the other's files in place. With `dataset: digits`
    alone the stages are `train@vae` and so on, of the dataset that params.yaml or `-S dataset=adult` names. Nothing
    runs again for a change from one to the other.
    """
    from data.cards import find_card
    from data.files import write_atomically
    from pipelines import config
    from pipelines.config.pipeline_file import PIPELINE, lock_content, pipeline_text, stage_datasets

    written = config.read_yaml(config.PATH)
    several = written.get("datasets") or ()
    params = config.load(dataset=str(several[0]) if several else None)
    for name in params.datasets or (params.dataset,):
        find_card(name, Path())
        if not (recipe := Path("recipes") / f"{name}.yaml").exists():
            raise FileNotFoundError(
                f"{recipe} does not exist, and the stages of {name!r} depend on it. Make it: it may be empty."
            )
    text = PIPELINE.read_text(encoding="utf-8")
    wanted = pipeline_text(text, params.datasets)
    now = ", ".join(params.datasets) or "the one dataset that params.yaml names"
    if wanted == text:
        print(f"{PIPELINE} has the stages of {now}: nothing to write")
        return
    lock = Path("dvc.lock")
    if lock.exists():
        from ruamel.yaml import YAML

        yaml, out = YAML(), io.StringIO()
        yaml.dump(lock_content(config.read_yaml(lock), params.datasets, params.dataset), out)
        write_atomically(lock, out.getvalue())
    write_atomically(PIPELINE, wanted)
    before = ", ".join(stage_datasets(text)) or "one dataset"
    print(f"wrote {PIPELINE}: the stages of {now} (before: of {before})")
    print("next: `dvc repro`; in Git, `git add dvc.yaml dvc.lock`")
