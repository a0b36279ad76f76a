"""A finished model as a version of the registered model, with the code that it needs."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.files import sha256
from models import CAPABILITIES, FAMILIES
from pipelines import tracking
from pipelines.evaluation.use_cases import USE_CASES
from pipelines.registry.model_card import model_card
from pipelines.serving import artifact
from pipelines.tracking import MODEL, Version
from pipelines.training import identity

PACKAGE = "fivefold_models"
"""Name of the families' package inside a registered model."""


def publish(
    root: Path,
    dataset: str,
    family: str,
    facts: Mapping[str, Any],
    results: Mapping[str, Any],
    package: Path,
    *,
    job: str = "",
) -> Version:
    """Register a family's finished model as a version, with its lineage as tags and the rest in its record.

    Arguments:
        root: The project's root.
        dataset: Name of the registered model.
        family: Whose finished model.
        facts: Of `model.json`.
        results: Of its evaluation.
        package: The families' code, a folder.
        job: What the version does unasked; empty for a version that waits to be asked.
    """
    folder = root / "runs" / dataset / "models" / family
    run = tracking.run_record(str(facts["run_id"]))
    run_id = run["run_id"]  # another than the model's where the store was migrated
    origin = {key: run["tags"][key] for key in ("git_commit", "git_dirty") if key in run["tags"]}
    held_out = sorted(results.get("held_out_scores") or ())
    tags = {
        "family": family,
        "job": job,
        "held_out_digest": hashlib.sha256(artifact.canonical(held_out)).hexdigest() if held_out else "",
        "model_digest": artifact.model_digest(folder),
        "code_digest": identity.code_digest(family, package),
        "data_digest": str(facts["data_digest"]),
        "yardstick_digest": str(results.get("yardstick_digest", "")),
        "run_id": run_id,
        "parameters": str(facts.get("parameters", "")),
        **(origin or tracking.code_version(root)),
    }
    record = {
        **_hash_tag("params_sha256", root / "params.yaml"),
        **_hash_tag("dvc_lock_sha256", root / "dvc.lock"),
        "metrics": dict(results["metrics"]),
    }
    manifest = _manifest(root, dataset)
    about = {
        "job": job,
        "label": _label_column(root, dataset),
        "held_out_scores": held_out,
        "exact": "log_prob" in tasks_of(family),
        "latent": results.get("code_size"),
        "licence": str(manifest.get("licence") or ""),
        "data_digest": str(facts["data_digest"]),
    }
    version, _ = tracking.publish(
        name=dataset,
        family=family,
        run_id=run_id,
        served={"model": folder, "package": package, "about": about},
        tags=tags,
        record=record,
        page=lambda job: model_card(dataset, facts, results, manifest, {**about, "job": job}),
        metrics=tracking.evaluation_metrics(results),
    )
    return version


def with_job(root: Path, version: Version, job: str) -> Version:
    """The version of a registered version's model that does a job unasked: found, or made from the registered files.

    Arguments:
        root: The project's root, in which the data need not be at hand.
        version: Any version of the model.
        job: A key of `USE_CASES`.
    Raises:
        ValueError: If the model was not measured for the job, or its files were altered.
    """
    if version.tags.get("job", "") == job:
        return version
    for other in tracking.versions(version.name):
        keys = (*MODEL, "held_out_digest")
        if other.tags.get("job", "") == job and all(other.tags.get(k, "") == version.tags.get(k, "") for k in keys):
            return other
    version = tracking.with_record(version)
    results = {"metrics": version.record.get("metrics", {})}
    if USE_CASES[job].metric(results["metrics"]) is None:
        raise ValueError(
            f"{version.name} version {version.number} ({version.tags.get('family', '?')}) was not measured for {job}, "
            f"so it cannot hold {version.name}@{job}. Figures that decide it: {', '.join(USE_CASES[job].metrics)}."
        )
    with tempfile.TemporaryDirectory() as temporary:
        served = tracking.open_served(tracking.checked_download(version, temporary)[0])
        facts, _ = artifact.read(served.model)
        about = {**served.about, "job": job}
        manifest = _manifest(root, str(facts.get("dataset", version.name))) or {"licence": about.get("licence", "")}
        made, _ = tracking.publish(
            name=version.name,
            family=str(facts["family"]),
            run_id=version.run_id,
            served={"model": served.model, "package": served.package, "about": about},
            tags={**version.tags, "job": job},
            record=version.record,
            page=lambda one: model_card(version.name, facts, results, manifest, about) if one == job else None,
            metrics=tracking.evaluation_metrics(results),
        )
    return made


def tasks_of(family: str) -> tuple[str, ...]:
    """The tasks that a family's capabilities offer."""
    return tuple(task for task, capability in CAPABILITIES.items() if issubclass(FAMILIES[family], capability))


def _hash_tag(name: str, path: Path) -> dict[str, str]:
    return {name: sha256(path)} if path.exists() else {}


def _manifest(root: Path, dataset: str) -> dict[str, Any]:
    """What `prepare` wrote about the data; empty where they are not at hand."""
    path = root / "data" / "prepared" / dataset / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _label_column(root: Path, dataset: str) -> str:
    """The name of the column that names a row's class; empty where the card does not say."""
    from data.cards import CATALOG, load_card

    return load_card(dataset, root).label if (root / CATALOG / f"{dataset}.yaml").exists() else ""


@contextmanager
def vendored_code() -> Iterator[Path]:
    """The code as it travels: a copy of `models` under a name of its own, with `serving` and the cells' formats."""
    import models
    from data import formats
    from pipelines import serving

    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / PACKAGE
        for source, target in (
            (models, package),
            (serving, package / "serving"),
            (formats, package / "serving/formats"),
        ):
            folder = Path(str(source.__file__)).parent
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
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
        for kind, path in identity.registered_outside(table).items():
            up = "." * (place.count("/") + 2)
            code = path.read_text(encoding="utf-8")
            code = re.sub(r"(?m)^from pipelines\.serving\b", f"from {up}serving", code)
            code = re.sub(r"(?m)^from models\b\.?", f"from {up}", code)
            left = re.search(r"(?m)^(from|import) (models|data|pipelines)\b.*", code)
            if left:
                raise ValueError(
                    f"{path} cannot travel with a registered model: it says {left[0]!r}. "
                    "Import from models and pipelines.serving only, by `from … import …`."
                )
            (package / place / f"registered_{kind}.py").write_text(code, encoding="utf-8")
            with (package / place / "__init__.py").open("a", encoding="utf-8") as file:
                entry = table[kind].__name__
                file.write(f"\nfrom .registered_{kind} import {entry}\n\n{name}[{kind!r}] = {entry}\n")
