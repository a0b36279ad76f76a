"""A finished model as a version of the registered model, with the code that it needs."""

from __future__ import annotations

import inspect
import json
import re
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
        _vendor_registered(package)
        yield package


def _vendor_registered(package: Path) -> None:
    """Kinds of data registered from outside travel too: files with relative imports, and the lines that add them.

    Raises:
        ValueError: If such a file imports what does not travel.
    """
    from models.domains import DOMAINS
    from pipelines.serving.domains import CONVERSIONS

    tables: tuple[tuple[str, Mapping[str, Any], str], ...] = (
        ("DOMAINS", DOMAINS, "domains"),
        ("CONVERSIONS", CONVERSIONS, "serving/domains"),
    )
    for name, table, place in tables:
        for kind, found in table.items():
            if found.__module__.split(".")[0] in ("models", "pipelines"):
                continue
            up = "." * (place.count("/") + 2)
            code = Path(inspect.getfile(found)).read_text(encoding="utf-8")
            code = re.sub(r"(?m)^from pipelines\.serving\b", f"from {up}serving", code)
            code = re.sub(r"(?m)^from models\b\.?", f"from {up}", code)
            left = re.search(r"(?m)^(from|import) (models|data|pipelines)\b.*", code)
            if left:
                raise ValueError(
                    f"{inspect.getfile(found)} cannot travel with a registered model: it says {left[0]!r}. "
                    "Import from models and pipelines.serving only, by `from … import …`."
                )
            (package / place / f"registered_{kind}.py").write_text(code, encoding="utf-8")
            with (package / place / "__init__.py").open("a", encoding="utf-8") as file:
                line = f"{name}[{kind!r}] = {found.__name__}"
                file.write(f"\nfrom .registered_{kind} import {found.__name__}\n\n{line}\n")
