"""What Fivefold is built on: its pins (`lock`), a list for machines (`sbom`), and what is known against it (`audit`).

python -m benchmarks.supply lock                 # requirements.lock of pyproject.toml, by uv; --upgrade for newer ones
python -m benchmarks.supply sbom > sbom.json     # CycloneDX 1.5, of requirements.lock
python -m benchmarks.supply audit                # pip-audit, where it is installed and reaches its source
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
OF_TORCH = re.compile(r"(torch|triton|cuda-\w+|nvidia-(?!ml-py)[\w-]+)==")
"""What depends on the build of torch, and so on the machine: pinned by pyproject.toml, without hashes."""

HEADER = """\
# Made by `make lock` from pyproject.toml: for every platform and Python, each file by its SHA-256 (pip checks them).
# Then: torch=={torch}, whose builds for CPU and GPU are other files, from the index of the build you want.
"""


def lock(arguments: list[str]) -> None:
    """Write requirements.lock; versions that it has stay while they fit, unless uv is told `--upgrade`."""
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--python-version", "3.11"]
    command += ["--no-header", "--no-annotate", "--extra", "dev", "pyproject.toml", "--output-file", LOCK.name]
    subprocess.run([*command, *arguments], cwd=ROOT, check=True)
    entries = re.split(r"(?m)^(?=\S)", LOCK.read_text(encoding="utf-8"))
    torch = re.search(r"torch==([\d.]+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert torch is not None
    kept = [entry for entry in entries if not OF_TORCH.match(entry)]
    LOCK.write_text(HEADER.format(torch=torch[1]) + "".join(kept), encoding="utf-8")


def locked() -> dict[str, str]:
    """Version by package, as requirements.lock pins them, torch too."""
    pins = re.findall(r"(?m)^(?:# Then: )?([A-Za-z0-9._-]+)==([\w.+!-]+)", LOCK.read_text(encoding="utf-8"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


def sbom() -> dict[str, Any]:
    """All packages with version, licence and package URL; licences of those that are installed here."""
    components = []
    for name, version in sorted(locked().items()):
        component: dict[str, Any] = {"type": "library", "name": name, "version": version}
        component["purl"] = component["bom-ref"] = f"pkg:pypi/{name}@{version}"
        if licence := _licence(name):
            component["licenses"] = [{"license": {"name": licence}}]
        components.append(component)
    subject = {"type": "application", "name": "fivefold", "bom-ref": "fivefold"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "metadata": {"component": subject},
        "components": components,
    }


def _licence(name: str) -> str:
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    stated = about.get("License-Expression") or about.get("License") or ""
    classified = [entry.split(" :: ")[-1] for entry in about.get_all("Classifier") or () if entry.startswith("License")]
    return stated.splitlines()[0][:100] if stated else ", ".join(classified)


def audit() -> int:
    """Ask pip-audit; not being able to is said, and no failure."""
    if shutil.which("pip-audit") is None:
        print("audit skipped: pip-audit is not installed (`pip install pip-audit`)")
        return 0
    command = ["pip-audit", "--requirement", str(LOCK), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True)
    if re.search(r"ConnectionError|MaxRetryError|NameResolution|ServiceError|Failed to connect", done.stderr):
        print("audit skipped: no advisory source can be reached from here")
        return 0
    print(done.stdout + done.stderr)
    return done.returncode


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["lock", *arguments]:
            lock(arguments)
        case ["sbom"]:
            print(json.dumps(sbom(), indent=1))
        case ["audit"]:
            sys.exit(audit())
        case _:
            sys.exit(__doc__)
