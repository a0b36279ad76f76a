"""A finished model as a version of the registered model, with the code that it needs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.files import sha256
from pipelines import tracking
from pipelines.serving import artifact
from pipelines.tracking import Version
from pipelines.training.identity import code_digest

PACKAGE = "fivefold_models"
"""Name of the families' package inside a registered model."""


def publish(
    root: Path, dataset: str, family: str, facts: Mapping[str, Any], results: Mapping[str, Any], package: Path
) -> Version:
    """Register a family's finished model as a version, with its lineage and metrics as tags."""
    folder = root / "runs" / dataset / "models" / family
    run_id = str(facts["run_id"])
    run = tracking.run_record(run_id)
    origin = {key: run["tags"][key] for key in ("git_commit", "git_dirty") if key in run["tags"]}
    tags = {
        "family": family,
        "model_digest": artifact.model_digest(folder),
        "code_digest": code_digest(family, package),
        "data_digest": str(facts["data_digest"]),
        "yardstick_digest": str(results.get("yardstick_digest", "")),
        "run_id": run_id,
        "parameters": str(facts.get("parameters", "")),
        **_hash_tag("params_sha256", root / "params.yaml"),
        **_hash_tag("dvc_lock_sha256", root / "dvc.lock"),
        **(origin or tracking.code_version(root)),
        **_metric_tags(results),
    }
    version, _ = tracking.publish(
        name=dataset,
        family=family,
        run_id=run_id,
        served={"model": folder, "package": package},
        tags=tags,
        metrics={key: value for key, value in tracking.evaluation_metrics(results).items() if key.count(".") == 1},
    )
    return version


def _hash_tag(name: str, path: Path) -> dict[str, str]:
    return {name: sha256(path)} if path.exists() else {}


def _metric_tags(results: Mapping[str, Any]) -> dict[str, str]:
    """`metric.<name>` with the whole number as JSON: what a later challenger is compared with."""
    return {f"metric.{name}": json.dumps(entry, sort_keys=True) for name, entry in results["metrics"].items()}


@contextmanager
def vendored_code() -> Iterator[Path]:
    """The code as it travels: a copy of `models` under a name of its own, with `serving` and the cells' formats."""
    import models
    from data import formats
    from pipelines import serving

    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / PACKAGE
        for source, target in ((models, package), (serving, package / "serving")):
            folder = Path(str(source.__file__)).parent
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        shutil.copyfile(str(formats.__file__), package / "serving/formats.py")
        yield package
