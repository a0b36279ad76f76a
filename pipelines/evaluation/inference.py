"""Asking a model: batched, seeded, without gradients, and never taking NaN for an answer.

Every answer is a pure function of the model, the rows and the seed, whatever else was asked before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a model is asked about one chunk of rows; the answer is a pure function of it and the model.

    Arguments:
        what: Name of the capability's method.
        start: Number of the chunk's first row, which seeds its randomness.
        size: Rows of the chunk.
        seed: Seed of the whole answer.
        rows: The chunk's rows or codes; `None` for samples.
        more: What else the method is given, by name.
    """

    what: str
    start: int
    size: int
    seed: int = 0
    rows: Tensor | None = None
    more: dict[str, Any] = field(default_factory=dict)


Ask = Callable[[object, Sequence[Question]], list[Tensor]]
"""What puts questions to a model, wherever that is, and returns the answers in their order."""


def answer(model: Any, question: Question) -> Tensor:
    """A model's answer to one question, on the CPU."""
    with _asking(model) as device:
        streams = Streams.seeded(question.seed, question.what, question.start, device=device)
        rows: Any = None if question.rows is None else question.rows.to(device)
        more = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in question.more.items()}
        method = getattr(model, question.what)
        match question.what:
            case "sample":
                found = method(question.size, more["label"], streams)
            case "impute":
                found = method(rows, more["observed"], streams, draws=more["draws"])
            case "encode" | "decode" | "denoise":
                found = method(rows, *more.values())
            case _:
                found = method(rows, streams, **more)
        return found.cpu()


def ask_here(model: object, questions: Sequence[Question]) -> list[Tensor]:
    """Answers of a model in this process."""
    return [answer(model, question) for question in questions]


def sample(
    model: object, n: int, label: Int[Tensor, " n"] | None, seed: int, *, chunk: int = CHUNK, ask: Ask = ask_here
) -> Num[Tensor, "n *data"]:
    """`n` samples on the CPU, with the labels asked for."""
    assert isinstance(model, Sampling)
    questions = []
    for start in range(0, n, chunk):
        wanted = None if label is None else label[start : start + chunk]
        size = min(chunk, n - start)
        questions.append(Question(what="sample", start=start, size=size, seed=seed, more={"label": wanted}))
    return _finite(torch.cat(ask(model, questions)), "sample")


def log_prob(
    model: object, x: Num[Tensor, "n *data"], seed: int, *, chunk: int = CHUNK, ask: Ask = ask_here
) -> Float[np.ndarray, " n"]:
    """Log-probability of each row in nats."""
    assert isinstance(model, Density)
    return _rows(model, "log_prob", x, seed, chunk, ask).double().numpy()


def elbo(
    model: object, x: Num[Tensor, "n *data"], seed: int, samples: int, *, chunk: int = CHUNK, ask: Ask = ask_here
) -> Float[np.ndarray, " n"]:
    """Lower bound of the log-probability of each row in nats, with `samples` draws."""
    assert isinstance(model, DensityBound)
    return _rows(model, "elbo", x, seed, chunk, ask, samples=samples).double().numpy()


def encode(
    model: object, x: Num[Tensor, "n *data"], *, chunk: int = CHUNK, ask: Ask = ask_here
) -> Float[Tensor, "n latent"]:
    """Codes of each row, flattened; of a network as float32."""
    assert isinstance(model, Coding)
    codes = _rows(model, "encode", x, 0, chunk, ask).flatten(1)
    return codes.float() if isinstance(model, GenerativeModel) else codes


def decode(
    model: object, z: Float[Tensor, "n latent"], *, chunk: int = CHUNK, ask: Ask = ask_here
) -> Num[Tensor, "n *data"]:
    """Examples of each code."""
    assert isinstance(model, Coding)
    return _rows(model, "decode", z, 0, chunk, ask)


def reconstruct(
    model: object, x: Num[Tensor, "n *data"], seed: int, *, chunk: int = CHUNK, ask: Ask = ask_here
) -> Num[Tensor, "n *data"]:
    """Reconstruction of each row."""
    assert isinstance(model, Reconstruction)
    return _rows(model, "reconstruct", x, seed, chunk, ask)


def anomaly_score(
    model: object, x: Num[Tensor, "n *data"], seed: int, *, chunk: int = CHUNK, ask: Ask = ask_here
) -> Float[np.ndarray, " n"]:
    """Anomaly score of each row; higher is more anomalous."""
    assert isinstance(model, AnomalyScoring)
    return _rows(model, "anomaly_score", x, seed, chunk, ask).double().numpy()


def impute(
    model: object,
    x: Num[Tensor, "n *data"],
    observed: Bool[Tensor, "n *data"],
    seed: int,
    *,
    draws: int,
    chunk: int = 100,
    ask: Ask = ask_here,
) -> Num[Tensor, "draws n *data"]:
    """Completions of each row.

    Raises:
        ValueError: If the model altered an observed cell.
    """
    assert isinstance(model, Imputation)
    questions = []
    for start in range(0, len(x), chunk):
        rows, more = x[start : start + chunk], {"observed": observed[start : start + chunk], "draws": draws}
        questions.append(Question(what="impute", start=start, size=len(rows), seed=seed, rows=rows, more=more))
    parts = ask(model, questions)
    for question, part in zip(questions, parts, strict=True):
        rows, known = x[question.start :][: question.size], question.more["observed"]
        known = known & ~rows.isnan() if rows.is_floating_point() else known
        if not torch.equal(part[:, known], rows[known].to(part).expand(draws, -1)):
            raise ValueError(f"impute of {type(model).__name__} altered cells that were given")
    return _finite(torch.cat(parts, dim=1), "impute")


def denoise(
    model: object, x: Num[Tensor, "n *data"], sigma: float, *, chunk: int = CHUNK, ask: Ask = ask_here
) -> Num[Tensor, "n *data"]:
    """The expected clean rows, given noise of standard deviation `sigma` in data units."""
    assert isinstance(model, Denoising)
    return _rows(model, "denoise", x, 0, chunk, ask, sigma=sigma)


def _rows(model: object, what: str, rows: Tensor, seed: int, chunk: int, ask: Ask, **more: Any) -> Tensor:
    """The answers about all rows, chunk by chunk."""
    starts = range(0, len(rows), chunk)
    parts = [(start, rows[start : start + chunk]) for start in starts]
    questions = [Question(what=what, start=s, size=len(x), seed=seed, rows=x, more=more) for s, x in parts]
    found = torch.cat(ask(model, questions))
    if len(found) != len(rows):
        raise ValueError(f"{what} of {type(model).__name__} gave {len(found)} rows for {len(rows)}")
    return _finite(found, f"{what} of {type(model).__name__}")


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
    device = device_of(network)
    return torch.cat([network(inputs(part).to(device)).argmax(1).cpu() for part in x.split(chunk)])


def device_of(network: nn.Module) -> torch.device:
    """Where a network is; the CPU if it holds nothing."""
    return next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
