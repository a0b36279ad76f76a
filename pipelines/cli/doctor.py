"""The verb `doctor`: what is installed, reachable and at hand, and what to fix."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.cli.options import AsJson
from pipelines.cli.tables import GREEN, RED, YELLOW, print_json, styled

LIBRARIES = ("torch", "ray", "mlflow", "dvc", "pyarrow", "optuna", "scikit-learn", "safetensors")
FREE_GIGABYTES = 2.0
STYLES = {"ok": GREEN, "warn": YELLOW, "fix": RED}


def doctor(as_json: AsJson = False) -> None:
    """Say what is installed and reachable: a line per check, with the fix where one is needed. Nothing is changed.

    Arguments:
        as_json: Print a list of objects instead.
    Raises:
        RuntimeError: If a check failed that the pipeline cannot do without.
    """
    checks: list[Callable[[], tuple[str, str]]] = [
        _python,
        *(partial(_library, name) for name in LIBRARIES),
        _machine,
        _gpus,
        _disk,
        _project,
        _privacy,
        _params,
        _sources,
        _mlflow,
        _ray,
    ]
    found = []
    for check in checks:
        mark, text = check()
        found.append({"mark": mark, "text": text})
        if not as_json:
            print(styled(f"{mark:>4}", STYLES[mark], sys.stdout), "", text, flush=True)
    if as_json:
        print_json(found)
    failed = sum(entry["mark"] == "fix" for entry in found)
    if failed:
        raise RuntimeError(f"{failed} check{'s' if failed > 1 else ''} failed; each line marked fix says what to do")


def _python() -> tuple[str, str]:
    version = platform.python_version()
    good = sys.version_info >= (3, 11)
    return ("ok", f"Python {version}") if good else ("fix", f"Python {version}: Fivefold needs 3.11 or newer")


def _library(name: str) -> tuple[str, str]:
    try:
        return "ok", f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return "fix", f"{name} is not installed: run `make setup`"


def _machine() -> tuple[str, str]:
    import psutil

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{cores} cores, {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB memory free"
    return ("ok", text) if memory.available > 2e9 else ("warn", f"{text}: training wants 2 GB")


def _gpus() -> tuple[str, str]:
    import torch

    if not torch.cuda.is_available():
        return "ok", "no GPU: training runs on the CPU"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return "ok", f"{len(names)} GPU: {', '.join(sorted(set(names)))}; `workers: auto` takes one worker each"


def _disk() -> tuple[str, str]:
    free = shutil.disk_usage(".").free / 1e9
    if not os.access(".", os.W_OK):
        return "fix", f"no permission to write in {Path.cwd()}: run in a folder of your own"
    text = f"{free:.0f} GB free in this folder"
    return ("ok", text) if free > FREE_GIGABYTES else ("fix", f"{text}: make room, runs need about {FREE_GIGABYTES} GB")


def _project() -> tuple[str, str]:
    missing = [name for name in ("params.yaml", "dvc.yaml", "data/catalog") if not Path(name).exists()]
    if missing:
        return "fix", f"{', '.join(missing)} not found here: run from the project's root folder"
    return "ok", "this is a Fivefold project"


def _privacy() -> tuple[str, str]:
    from pipelines.cli import privacy

    root = Path.cwd()
    try:
        privacy.secure_site_cache(root)
    except OSError as error:
        return "fix", str(error)
    if wrong := privacy.close_token():
        return "fix", wrong
    where = privacy.site_cache(root)
    text = f"only this user can write to DVC's cache{f', {where}' if where else ''}"
    return "ok", text


def _params() -> tuple[str, str]:
    from pipelines import config
    from pipelines.stages.settings import require_stages

    try:
        settings = [config.load(dataset=name) for name in _named()]
        require_stages(settings[0])
    except (ValueError, OSError) as error:
        return "fix", str(error)
    names = " and on ".join(each.dataset for each in settings)
    return "ok", f"params.yaml: {', '.join(settings[0].families)} on {names}"


def _named() -> list[Any]:
    """The datasets of `params.yaml`."""
    from pipelines import config

    written = config.read_yaml(config.PATH)
    several = written.get("datasets")
    return several if isinstance(several, list) and several else [written.get("dataset")]


def _sources() -> tuple[str, str]:
    """Whether DVC would notice that the source of a dataset in params.yaml was edited."""
    from data.cards import load_card
    from pipelines.cli.watching import STAGES, place, watched

    try:
        cards, there = [load_card(name, Path()) for name in _named()], watched(Path())
    except (ValueError, OSError) as error:
        return "warn", f"whether an edited source would be noticed is not known: {error}"
    loose = [card.name for card in cards if card.source.path and there.get(card.name) != place(card)]
    if loose:
        run = ", ".join(f"`fivefold data update {name}`" for name in loose)
        return "warn", f"nothing notices an edit of the source of {', '.join(loose)} ({STAGES} lacks it): run {run}"
    return "ok", "an edited source is noticed"


def _mlflow() -> tuple[str, str]:
    from pipelines import tracking

    try:
        return "ok", tracking.examine()
    except ConnectionError as error:
        return "fix", str(error)


def _ray() -> tuple[str, str]:
    """Asks a job server all that a stage would; of another cluster only whether it listens."""
    from pipelines import config

    try:
        settings = config.load(dataset=_named()[0]).cluster
    except (ValueError, OSError):
        settings = config.Cluster()  # said by another check
    address = os.environ.get("RAY_ADDRESS") or settings.address
    if not address or address in ("auto", "local"):
        return "ok", "Ray: this machine (set cluster.address, or RAY_ADDRESS, for a cluster)"
    from pipelines import cluster

    try:
        if not address.startswith("http"):
            cluster.knock(address)
            return "ok", f"Ray cluster at {address}"
        cluster.JobServer(address)
    except OSError as error:
        return "fix", f"{address}: {error}"
    if not settings.storage:
        return "fix", f"Ray jobs go to {address}, but cluster.storage is not set: see docs/cluster.md"
    if not settings.storage.startswith("s3://") and not os.access(settings.storage, os.W_OK):
        return (
            "fix",
            f"cluster.storage: {settings.storage} is no folder that can be written to: mount it, or fix its rights",
        )
    return "ok", f"Ray jobs go to {address}, and their data and state to {settings.storage}"
