"""What is built and run elsewhere names what is there: images, KubeRay's files, the workflow."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "docs/cluster"
INSTRUCTIONS = {
    "FROM", "RUN", "COPY", "ENV", "ARG", "USER", "WORKDIR", "CMD", "EXPOSE", "HEALTHCHECK",
}  # fmt: skip


def instructions(name: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, comments left out and continued lines joined."""
    text = "\n".join(line for line in (ROOT / "docker" / name).read_text().splitlines() if not line.startswith("#"))
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


@pytest.mark.parametrize("name", ["train.Dockerfile", "serve.Dockerfile"])
def test_dockerfiles(name: str) -> None:
    """No Docker here: what can be read without one."""
    said = instructions(name)
    assert {instruction for instruction, _ in said} <= INSTRUCTIONS
    assert said[0][0] == "FROM"
    for instruction, rest in said:
        if instruction == "RUN":
            assert subprocess.run(["bash", "-n", "-c", rest], capture_output=True).returncode == 0, rest
        elif instruction == "COPY":
            source = rest.split()[0]
            allowed = (ROOT / ".dockerignore").read_text().split()
            assert f"!{source.split('/')[0]}" in allowed
            assert source.startswith("model") or (ROOT / source).exists()
        elif instruction in ("CMD", "HEALTHCHECK"):
            assert json.loads(rest[rest.index("[") :])
    users = [rest for instruction, rest in said if instruction == "USER"]
    stages = [rest.split()[0] for instruction, rest in said if instruction == "FROM"]
    assert len(users) == max(1, stages.count("base"))  # nothing that is run runs as root
    python = re.search(r'requires-python = ">=([\d.]+)', (ROOT / "pyproject.toml").read_text())
    assert python is not None
    assert f"python:{python[1]}-slim" in stages


def test_kuberay_names_what_is_built() -> None:
    dockerfile = (ROOT / "docker/train.Dockerfile").read_text()
    built = dict(re.findall(r"--target (\w+) -t (\S+)", dockerfile))
    assert set(built) == set(re.findall(r"^FROM base AS (\w+)", dockerfile, flags=re.M))
    cluster = yaml.safe_load((KUBERAY / "kuberay_cluster.yaml").read_text())
    assert images(cluster["spec"]["headGroupSpec"]) == {built["cpu"]}
    assert images(cluster["spec"]["workerGroupSpecs"]) == {built["cuda"]}
    lock = (ROOT / "requirements.lock").read_text().split()
    assert f"ray=={cluster['spec']['rayVersion']}" in lock
    job = yaml.safe_load((KUBERAY / "kuberay_job.yaml").read_text())
    assert job["spec"]["clusterSelector"]["ray.io/cluster"] == cluster["metadata"]["name"]


def test_every_file_of_the_lock_is_known_by_its_hash_and_torch_by_its_version() -> None:
    """Whoever installs the lock lets pip check it, and adds the torch that `pyproject.toml` pins."""
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"(?m)^(?=[a-z])", text)[1:]
    assert len(entries) > 200
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [^\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n", entry), entry
    assert not [entry for entry in entries if re.match(r"torch|triton|cuda|nvidia-(?!ml-py)", entry)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (torch,) = (need for need in project["dependencies"] if need.startswith("torch"))
    assert re.findall(r"torch==[0-9.]*", text) == [torch]  # as grep finds it
    for path in ("docker/train.Dockerfile", "ray_cluster.yaml", "docs/cluster/own_machines.yaml"):
        said = (ROOT / path).read_text()
        assert said.count("-r ") == said.count("--require-hashes -r ") > 0, path
        assert said.count("pip install") == 2 * said.count("--require-hashes"), path
        assert said.count("$(grep -o 'torch==[0-9.]*' ") == said.count("--require-hashes"), path


def images(tree: Any) -> set[str]:
    """Every image that a manifest names."""
    if isinstance(tree, dict):
        return {value for key, value in tree.items() if key == "image"} | images(list(tree.values()))
    return set().union(*map(images, tree)) if isinstance(tree, list) else set()


def test_the_workflow_runs_what_there_is() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/check.yaml").read_text())
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    for command in commands:
        assert subprocess.run(["bash", "-n", "-c", command], capture_output=True).returncode == 0, command
        assert set(re.findall(r"^make ([\w-]+)", command, flags=re.M)) <= set(targets)
        assert all((ROOT / path).exists() for path in re.findall(r"^(\.ci/\S+)", command, flags=re.M))
    assert any("gh pr comment" in command for command in commands)
    assert workflow["permissions"] == {"contents": "read"}  # more only where it is needed
    (writing,) = (job for job in workflow["jobs"].values() if "permissions" in job)
    assert writing["permissions"] == {"contents": "read", "pull-requests": "write"}
