"""Asking a model: batched, seeded, without gradients, and never taking NaN for an answer.

Every answer is a pure function of the model, the rows and the seed, whatever else was asked before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn

from models.capabilities import (
    AnomalyScoring,
    Coding,
    Denoising,
    Density,
    DensityBound,
    Imputation,
    Reconstruction,
    Sampling,
)
from models.contract import GenerativeModel
from models.rng import Streams
from pipelines.evaluation.domain import FeatureEncoder

if TYPE_CHECKING:
    from data.dataset import Examples


CHUNK = 512
"""Rows a model is asked about at a time."""


def proportional_labels(counts: list[int], n: int, seed: int) -> Int[Tensor, " n"]:
    """Labels in the proportions of `counts`, in random order (largest remainders get the last seats).

    Arguments:
        counts: Examples of each class.
        n: How many labels.
        seed: Seed of the order.
    """
    share = np.asarray(counts, np.float64) / sum(counts) * n
    seats = np.floor(share).astype(np.int64)
    seats[np.argsort(-(share - seats), kind="stable")[: n - seats.sum()]] += 1
    return torch.from_numpy(np.random.default_rng([seed, n]).permutation(np.repeat(np.arange(len(seats)), seats)))


def sample(
    model: object, n: int, label: Int[Tensor, " n"] | None, seed: int, *, chunk: int = CHUNK
) -> Num[Tensor, "n *data"]:
    """`n` samples on the CPU, with the labels asked for."""
    assert isinstance(model, Sampling)
    parts = []
    with _asking(model) as device:
        for start in range(0, n, chunk):
            size = min(chunk, n - start)
            wanted = None if label is None else label[start : start + size].to(device)
            parts.append(model.sample(size, wanted, Streams.seeded(seed, "sample", start, device=device)).cpu())
    return _finite(torch.cat(parts), "sample")


def log_prob(model: object, x: Num[Tensor, "n *data"], seed: int, *, chunk: int = CHUNK) -> Float[np.ndarray, " n"]:
    """Log-probability of each row in nats."""
    assert isinstance(model, Density)
    return _rows(model, model.log_prob, x, seed, "log_prob", chunk).double().numpy()


def elbo(
    model: object, x: Num[Tensor, "n *data"], seed: int, samples: int, *, chunk: int = CHUNK
) -> Float[np.ndarray, " n"]:
    """Lower bound of the log-probability of each row in nats, with `samples` draws."""
    assert isinstance(model, DensityBound)
    bound = model.elbo

    def ask(part: Tensor, streams: Streams) -> Tensor:
        return bound(part, streams, samples=samples)

    return _rows(model, ask, x, seed, "elbo", chunk).double().numpy()


def encode(model: object, x: Num[Tensor, "n *data"], *, chunk: int = CHUNK) -> Float[Tensor, "n latent"]:
    """Codes of each row, flattened; of a network as float32."""
    assert isinstance(model, Coding)
    encoder = model.encode
    codes = _rows(model, lambda part, _: encoder(part), x, 0, "encode", chunk).flatten(1)
    return codes.float() if isinstance(model, GenerativeModel) else codes


def decode(model: object, z: Float[Tensor, "n latent"], *, chunk: int = CHUNK) -> Num[Tensor, "n *data"]:
    """Examples of each code."""
    assert isinstance(model, Coding)
    decoder = model.decode
    return _rows(model, lambda part, _: decoder(part), z, 0, "decode", chunk)


def reconstruct(model: object, x: Num[Tensor, "n *data"], seed: int, *, chunk: int = CHUNK) -> Num[Tensor, "n *data"]:
    """Reconstruction of each row."""
    assert isinstance(model, Reconstruction)
    return _rows(model, model.reconstruct, x, seed, "reconstruct", chunk)


def anomaly_score(
    model: object, x: Num[Tensor, "n *data"], seed: int, *, chunk: int = CHUNK
) -> Float[np.ndarray, " n"]:
    """Anomaly score of each row; higher is more anomalous."""
    assert isinstance(model, AnomalyScoring)
    return _rows(model, model.anomaly_score, x, seed, "anomaly_score", chunk).double().numpy()


def impute(
    model: object,
    x: Num[Tensor, "n *data"],
    observed: Bool[Tensor, "n *data"],
    seed: int,
    *,
    draws: int,
    chunk: int = 100,
) -> Num[Tensor, "draws n *data"]:
    """Completions of each row.

    Raises:
        ValueError: If the model altered an observed cell.
    """
    assert isinstance(model, Imputation)
    parts = []
    with _asking(model) as device:
        for start in range(0, len(x), chunk):
            streams = Streams.seeded(seed, "impute", start, device=device)
            rows, known = x[start : start + chunk], observed[start : start + chunk]
            part = model.impute(rows.to(device), known.to(device), streams, draws=draws).cpu()
            known = known & ~rows.isnan() if rows.is_floating_point() else known
            if not torch.equal(part[:, known], rows[known].to(part).expand(draws, -1)):
                raise ValueError(f"impute of {type(model).__name__} altered cells that were given")
            parts.append(part)
    return _finite(torch.cat(parts, dim=1), "impute")


def denoise(model: object, x: Num[Tensor, "n *data"], sigma: float, *, chunk: int = CHUNK) -> Num[Tensor, "n *data"]:
    """The expected clean rows, given noise of standard deviation `sigma` in data units."""
    assert isinstance(model, Denoising)
    denoiser = model.denoise
    return _rows(model, lambda part, _: denoiser(part, sigma), x, 0, "denoise", chunk)


def _rows(
    model: object, ask: Callable[[Tensor, Streams], Tensor], rows: Tensor, seed: int, name: str, chunk: int
) -> Tensor:
    parts = []
    with _asking(model) as device:
        for start in range(0, len(rows), chunk):
            streams = Streams.seeded(seed, name, start, device=device)
            parts.append(ask(rows[start : start + chunk].to(device), streams).cpu())
    answer = torch.cat(parts)
    if len(answer) != len(rows):
        raise ValueError(f"{name} of {type(model).__name__} gave {len(answer)} rows for {len(rows)}")
    return _finite(answer, f"{name} of {type(model).__name__}")


@contextmanager
def _asking(model: object) -> Iterator[torch.device]:
    """Evaluation mode without gradients; yields the model's device and restores its mode.

    What is no network (the classical baseline, replayed rows) has no mode and answers on the CPU.
    """
    if not isinstance(model, GenerativeModel):
        yield torch.device("cpu")
        return
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield model.label_frequencies.device
    finally:
        model.train(training)


def _finite(answer: Tensor, name: str) -> Tensor:
    if answer.is_floating_point() and answer.dtype != torch.float64:  # tables are float64; NaN is a missing cell
        bad = int((~torch.isfinite(answer)).flatten(1).any(1).sum() if answer.ndim > 1 else (~answer.isfinite()).sum())
        if bad:
            raise ValueError(
                f"{name} is not finite for {bad} of {len(answer)} rows: the model diverged or is broken. "
                "Look at its training curves and train it again with a lower learning rate."
            )
    return answer


SUBSET_ROWS = 1_000
"""Rows of a split that a model is asked about one by one (likelihood, codes, reconstruction, anomaly)."""


def evaluation_subset(rows: Examples) -> Examples:
    """The first `SUBSET_ROWS` rows, which stand in random order in a yardstick."""
    return type(rows)(x=rows.x[:SUBSET_ROWS], label=rows.label[:SUBSET_ROWS])


@torch.no_grad()
def predict(
    network: nn.Module, x: Num[Tensor, "n *data"], inputs: FeatureEncoder, chunk: int = 1024
) -> Int[Tensor, " n"]:
    """The most probable class of each example."""
    return torch.cat([network(inputs(part)).argmax(1) for part in x.split(chunk)])
