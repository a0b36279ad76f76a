"""Feature spaces, and the yardstick's folder read back and checked.

| file of `runs/<dataset>/yardstick/` | what |
| --- | --- |
| `yardstick.json` | what was made, from which data, with which accuracy; SHA-256 of every other file |
| `classifier.safetensors`, `random.safetensors`, `judge.safetensors` | frozen networks |
| `features.safetensors` | features and labels of the splits and of the baseline's samples |
| `baseline.safetensors` | the classical baseline's samples |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from safetensors.torch import load_file
from torch import Tensor, nn

from data.dataset import Examples
from pipelines.evaluation.domain import EvaluationDomain, FeatureEncoder
from pipelines.evaluation.domains import evaluation_domain
from pipelines.evaluation.inference import device_of
from pipelines.evaluation.reference.facts import checked_facts
from pipelines.evaluation.reference.networks import network

SPACES = ("classifier", "random")
"""Feature spaces; the first is the one whose numbers carry no suffix."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """A frozen map from examples to points, and where the real examples lie.

    Arguments:
        name: `classifier` or `random`.
        inputs: Data space to network inputs.
        network: The frozen network.
        mean: Mean of the raw features over the training rows, `[dim]`.
        std: Their standard deviation, `[dim]`.
        rows: Standardized features of known rows, by split name (and `baseline`), `[n, dim]` each.
        label_counts: Training examples of each class; empty for unlabelled data.
    """

    name: str
    inputs: FeatureEncoder
    network: nn.Module
    mean: Float[Tensor, " dim"]
    std: Float[Tensor, " dim"]
    rows: dict[str, Float[np.ndarray, "n dim"]]
    label_counts: list[int]

    @torch.no_grad()
    def features(self, x: Num[Tensor, "n *data"], chunk: int = 1024) -> Float[np.ndarray, "n dim"]:
        """Standardized features of examples, float64."""
        device = device_of(self.network)
        raw = [self.network.features(self.inputs(part).to(device)).cpu() for part in x.split(chunk)]
        return ((torch.cat(raw) - self.mean) / self.std).double().numpy()

    def tensors(self) -> dict[str, Tensor]:
        """What its file holds."""
        state = {f"network.{key}": value.cpu().clone() for key, value in self.network.state_dict().items()}
        return state | {"mean": self.mean, "std": self.std}


@torch.no_grad()
def standardized(name: str, trained: nn.Module, to_inputs: FeatureEncoder, train: Num[Tensor, "n *data"]) -> Space:
    """A space whose features have mean 0 and standard deviation 1 over the training rows.

    A feature that never varies keeps its scale, as all do of a network that says so (`standardized`).
    """
    device = device_of(trained)
    raw = torch.cat([trained.features(to_inputs(part).to(device)).cpu() for part in train.split(1024)])
    std = raw.std(0)
    scaled = (std > 1e-6) & getattr(trained, "standardized", True)
    std = torch.where(scaled, std, torch.ones_like(std))
    return Space(name=name, inputs=to_inputs, network=trained, mean=raw.mean(0), std=std, rows={}, label_counts=[])


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Everything frozen that models of one dataset are measured with.

    Arguments:
        facts: Contents of `yardstick.json`.
        inputs: Data space to network inputs.
        spaces: Feature spaces by name.
        label_classifier: Classifier of conditional samples; `None` for unlabelled data.
        labels: Labels of the rows known to the spaces, by split, `[n]` each, -1 where unknown.
        index: Row numbers of those rows in their split, `[n]` each.
        baseline: Samples of the classical baseline.
    """

    facts: dict[str, Any]
    inputs: FeatureEncoder
    spaces: dict[str, Space]
    label_classifier: nn.Module | None
    labels: dict[str, Int[Tensor, " n"]]
    index: dict[str, Int[Tensor, " n"]]
    baseline: Examples

    @property
    def digest(self) -> str:
        """Identity of the yardstick: SHA-256 over the SHA-256 of its files."""
        return self.facts["digest"]

    @classmethod
    def open(cls, folder: str | Path, device: str = "cpu") -> Reference:
        """Read a yardstick and check every file against its SHA-256.

        Arguments:
            folder: Where it lies.
            device: Where its networks are to be.
        Raises:
            FileNotFoundError: If there is none.
            ValueError: If a file is missing or altered, or the layout is newer than this code.
        """
        folder = Path(folder)
        facts = checked_facts(folder)
        domain = evaluation_domain(facts["domain"])
        to_inputs = domain.encoder
        known = load_file(folder / "features.safetensors")
        parts = _by_prefix(known)
        spaces = {}
        for name in SPACES:
            tensors = load_file(folder / f"{name}.safetensors")
            frozen = _frozen(domain, name, facts["networks"][name]["classes"], tensors).to(device)
            rows = {split: values.double().numpy() for split, values in parts[name].items()}
            spaces[name] = Space(
                name=name,
                inputs=to_inputs,
                network=frozen,
                mean=tensors["mean"],
                std=tensors["std"],
                rows=rows,
                label_counts=facts["label_counts"],
            )
        label_classifier = None
        if "judge" in facts["networks"]:
            tensors = load_file(folder / "judge.safetensors")
            label_classifier = _frozen(domain, "judge", facts["networks"]["judge"]["classes"], tensors).to(device)
        drawn = load_file(folder / "baseline.safetensors")
        return cls(
            facts=facts,
            inputs=to_inputs,
            spaces=spaces,
            label_classifier=label_classifier,
            labels=parts["label"],
            index=parts["index"],
            baseline=Examples(x=drawn["x"], label=drawn["label"]),
        )


def _frozen(domain: EvaluationDomain, role: str, classes: int, tensors: dict[str, Tensor]) -> nn.Module:
    built = network(domain, role, shape=domain.encoder.shape, classes=classes, seed=0)
    prefix = "network."
    built.load_state_dict({key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)})
    return built.eval().requires_grad_(False)


def _by_prefix(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """`{"a.b": t}` as `{"a": {"b": t}}`."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        first, _, rest = key.partition(".")
        parts.setdefault(first, {})[rest] = value
    return parts
