"""Training the frozen classifiers: short, augmented, and the same bits for the same seed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from jaxtyping import Int, Num
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F

from pipelines.evaluation.domain import FeatureEncoder
from pipelines.evaluation.inference import device_of


@contextmanager
def fixed_threads(threads: int = 1) -> Iterator[None]:
    """Run with a fixed number of threads: the order of a sum, hence its last bits, depends on it.

    One by default: no slower for networks this small, and steady on a busy machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(1):  # scikit-learn's parallel sums have no fixed order
            yield
    finally:
        torch.set_num_threads(before)


def fit(
    network: nn.Module,
    x: Num[Tensor, "n *data"],
    label: Int[Tensor, " n"],
    inputs: FeatureEncoder,
    *,
    examples: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Train a classifier in place, where it is: AdamW, cosine decay, label smoothing, light augmentation.

    Arguments:
        network: Inputs to logits.
        x: Training examples in data space.
        label: Their classes, none of them unknown.
        inputs: Data space to network inputs.
        examples: Examples to train on, counting repeats.
        batch_size: Examples a step.
        learning_rate: Largest learning rate, reached after a tenth of the steps.
        seed: Seed of order, augmentation and dropout.
    Raises:
        ValueError: If the loss is not finite.
    """
    batch_size = min(batch_size, len(x))
    steps = max(examples // batch_size, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps + 1, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    device = device_of(network)
    network.train()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _repeatable():
        torch.manual_seed(seed)
        for step, rows in enumerate(_shuffled(len(x), batch_size, steps, generator)):
            logits = network(inputs.augment(inputs(x[rows]), generator).to(device))
            loss = F.cross_entropy(logits, label[rows].to(device), label_smoothing=0.05)
            if not torch.isfinite(loss):
                raise ValueError(f"the yardstick's classifier diverged at step {step}: lower features.learning_rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval().requires_grad_(False)


def _repeatable() -> AbstractContextManager[None]:
    """As a context: kernels of a GPU that give the same bits again."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def _shuffled(n: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row numbers of `steps` batches, epoch after epoch; an epoch's incomplete batch is left out."""
    order, at = torch.randperm(n, generator=generator), 0
    for _ in range(steps):
        if at + batch_size > n:
            order, at = torch.randperm(n, generator=generator), 0
        yield order[at : at + batch_size]
        at += batch_size


FEW = 5
"""Rows to a cluster at least, on average."""


class PseudoLabels:
    """Labels for unlabelled data: k-means clusters of principal component codes.

    Arguments:
        x: Examples the clusters are found in.
        inputs: Data space to numbers.
        clusters: How many.
        seed: Seed of the k-means starts.
    """

    def __init__(self, x: Num[Tensor, "n *data"], inputs: FeatureEncoder, *, clusters: int, seed: int) -> None:
        flat = inputs.flat(x)
        self.inputs = inputs
        solver = "full" if flat.shape[1] <= 256 else "randomized"
        self.codes = PCA(min(32, *flat.shape), svd_solver=solver, random_state=seed).fit(flat)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fewer distinct rows than clusters is no trouble here
            means = KMeans(max(min(clusters, len(flat) // FEW), 1), n_init=4, random_state=seed)
            self.means = means.fit(self.codes.transform(flat))

    def __call__(self, x: Num[Tensor, "n *data"]) -> Int[Tensor, " n"]:
        """The cluster of each example."""
        codes = self.codes.transform(self.inputs.flat(x))
        return torch.from_numpy(np.asarray(self.means.predict(codes), np.int64))
