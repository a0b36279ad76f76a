"""A trained model as its user sees it: rows in, rows out."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fivefold.rows import Rows
from models import GenerativeModel, Streams, tasks
from pipelines.evaluation import inference
from pipelines.serving.domains.base import drawn_given, redrawn, scored
from pipelines.storage import model_folder

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    Data = pd.DataFrame | pa.Table | np.ndarray
    """Rows as the caller has them; what comes back has the same form, columns, types and categories."""


class Model:
    """A trained model; `fivefold.fit` and `fivefold.load` make it.

        model = fivefold.load("income.model")
        model.tasks                          # ('sample', 'log_prob', 'anomaly_score', 'impute')
        model.sample(100, label=">50K")

    Every answer is a function of the model, the rows and the seed. A method that the family has no way to
    answer raises a `ValueError` that says what it can do.

    Arguments:
        network: The model, in evaluation mode.
        facts: What `model.json` says of it.

    Attributes:
        network: The underlying `models.GenerativeModel`, for those who want tensors.
        facts: Family, settings, domain, classes, digest of the data.
    """

    def __init__(self, network: GenerativeModel, facts: dict[str, Any]) -> None:
        self.network: Any = network
        self.facts = facts
        self._rows = Rows(facts)

    def __repr__(self) -> str:
        return f"<fivefold.Model: {self.family} of {self._rows.conversion.expected}; can {', '.join(self.tasks)}>"

    @property
    def family(self) -> str:
        """Name of the family."""
        return self.facts["family"]

    @property
    def classes(self) -> list[str]:
        """Names of the classes that `sample` takes as `label`; empty for a model without labels."""
        return list(self._rows.classes)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What this model can do, by the names that a registered model takes."""
        return tasks(self.network)

    def with_sampling(self, **settings: Any) -> Model:
        """The same model, its weights shared, that draws otherwise; its `sampling` lists what can be set.

            guided = model.with_sampling(guidance=2.0)     # a diffusion model
            guided.sample(100, label=">50K")

        Raises:
            ValueError: If the family has no such setting, or a value is out of range.
        """
        network = self.network.with_sampling(**settings)
        return Model(network, {**self.facts, "sampling": dataclasses.asdict(network.sampling)})

    @property
    def sampling(self) -> dict[str, Any]:
        """How this model draws, by the names of its family's section `sampling` in `params.yaml`."""
        return dataclasses.asdict(self.network.sampling)

    def sample(
        self, n: int, label: Any = None, *, given: Mapping[str, Any] | None = None, seed: int = 0, **sampling: Any
    ) -> Data:
        """Draw new rows.

            model.sample(100)                      # labels as often as in the data
            model.sample(100, label=">50K")
            model.sample(2, label=["<=50K", ">50K"])
            model.sample(100, guidance=2.0)        # this time only, of a model that has it
            model.sample(100, given={"city": "Oslo", "age": [30, 40]})  # of a flow of rows: exact draws given these

        Arguments:
            n: How many.
            label: A class for all, or one for each; `None` for any. Of a table the label comes back in its column.
            given: Of a table: values of columns; of numbers and dates also a range `[least, most]` (`None` for an open
                end), of categories a list of those that may be. The label is one of the columns.
            seed: The same seed draws the same rows.
            sampling: Settings as of `with_sampling`, for these rows.
        Raises:
            ValueError: If there is no such class, or the model has none; if there is no such setting; if the family
                does not draw given columns, there is no such column, or too few draws lie in a range.
        """
        self._require("sample")
        if sampling:
            return self.with_sampling(**sampling).sample(n, label, given=given, seed=seed)
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise ValueError(f"n must be a whole number of at least 1, got {n!r}.")
        if label is not None and not self.classes:
            raise ValueError(f"this model was trained without labels: label must be None, got {label!r}.")
        if given:
            called = dict(zip(self._rows.given, self._rows.order, strict=False))
            columns = {called.get(name, str(name)): value for name, value in given.items()}
            return self._sample_given(n, label, columns, seed)
        if label is None:
            streams = Streams.seeded(seed, "labels", device=self.network.label_frequencies.device)
            codes = self.network.draw_labels(n, None, streams)
        else:
            codes = self._rows.codes(label, n)
        codes = None if codes is None else codes.cpu()
        seeds = itertools.count(seed + 1)
        x = redrawn(
            inference.sample(self.network, n, codes, seed), self._rows.conversion,
            lambda rows: inference.sample(
                self.network, len(rows), None if codes is None else codes[rows], next(seeds)
            ), seed=seed,
        )  # fmt: skip
        return self._rows.write(x, codes, seed)

    def _sample_given(self, n: int, label: Any, given: dict[str, Any], seed: int) -> Data:
        if not getattr(self.network, "exact_conditionals", False):
            raise ValueError(
                f"the family {self.family} does not draw given the values of columns; a flow of rows does "
                "(flow.architecture: autoregressive). Or fill in the other columns with impute."
            )
        named = given.pop(self._rows.layout["label"], None) if self.classes else None
        if named is not None and label is not None:
            raise ValueError(f"label and given both name the class: {label!r} and {named!r}. Leave one out.")
        label = named if label is None else label
        known = self._rows.conversion.read_given(given)
        labels = None
        if self.network.classes:
            labels = torch.full((n,), -1) if label is None else self._rows.codes(label, n)
        device = self.network.label_frequencies.device
        streams = Streams.seeded(seed, "given", device=device)

        def draw(x: torch.Tensor, labels: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
            wanted = itertools.repeat(None) if labels is None else labels.to(device).split(inference.CHUNK)
            parts = [
                self.network.sample_given(part, codes, streams)
                for part, codes in zip(x.to(device).split(inference.CHUNK), wanted, strict=False)
            ]
            codes = None if labels is None else torch.cat([codes.cpu() for _, codes in parts])
            return torch.cat([rows.cpu() for rows, _ in parts]), codes

        x, codes = drawn_given(known, self._rows.conversion, draw, labels, n, seed=seed)
        return self._rows.write(x, codes, seed, known.repeated(n))

    def log_density(self, rows: Data, *, draws: int = 16, seed: int = 0) -> np.ndarray:
        """Log-density of each row in nats: exact where the family knows it, else a lower bound.

            model.log_density(frame).mean()

        Arguments:
            rows: Rows; their missing cells are integrated out. A column of labels is ignored. A row that breaks a
                constraint has the density 0, `-inf`.
            draws: Importance samples behind each bound.
            seed: Of the bound's draws.
        """
        exact = "log_prob" in self.tasks
        self._require("log_prob" if exact else "elbo")
        x, _, beside = self._rows.read(rows, "log_prob")
        nats = inference.log_prob(self.network, x, seed) if exact else inference.elbo(self.network, x, seed, draws)
        return scored(nats, "log_prob", beside.broken)

    def anomaly_score(self, rows: Data, *, seed: int = 0) -> np.ndarray:
        """How unlike the training data each row is; only the order means something. Of a row that breaks a constraint
        it is `inf`.

        frame[model.anomaly_score(frame).argsort()[-10:]]   # the ten strangest
        """
        self._require("anomaly_score")
        x, _, beside = self._rows.read(rows, "anomaly_score")
        return scored(inference.anomaly_score(self.network, x, seed), "anomaly_score", beside.broken)

    def encode(self, rows: Data) -> np.ndarray:
        """Codes of each row, `[n, latent]`.

        model.decode(model.encode(frame))
        """
        self._require("encode")
        return inference.encode(self.network, self._rows.read(rows, "encode")[0]).numpy()

    def decode(self, codes: np.ndarray | Sequence[Sequence[float]]) -> Data:
        """Rows of codes `[n, latent]`, without labels.

        model.decode(np.zeros((1, 16)))
        """
        self._require("decode")
        z = torch.as_tensor(np.asarray(codes, np.float32))
        if z.ndim != 2 or not len(z) or not bool(z.isfinite().all()):
            raise ValueError(f"codes must be finite numbers [rows, latent], got shape {list(z.shape)}.")
        return self._rows.write(inference.decode(self.network, z))

    def reconstruct(self, rows: Data, *, seed: int = 0) -> Data:
        """The model's version of each row: what it keeps of it.

        model.reconstruct(frame)
        """
        self._require("reconstruct")
        x, _, beside = self._rows.read(rows, "reconstruct")
        return self._rows.write(inference.reconstruct(self.network, x, seed), beside)

    def impute(self, rows: Data, *, draws: int = 1, seed: int = 0) -> Data:
        """Fill in missing cells; the others come back as they are.

            model.impute(frame_with_gaps)             # one completion
            model.impute(frame_with_gaps, draws=8)    # eight, told apart by a first column `draw`

        Arguments:
            rows: Rows with gaps (NaN, `None`); images as floats with NaN for missing pixels.
            draws: Completions of each row; of arrays, more than one come back as `[draws, n, …]`.
            seed: The same seed draws the same.
        """
        self._require("impute")
        if isinstance(draws, bool) or not isinstance(draws, (int, np.integer)) or draws < 1:
            raise ValueError(f"draws must be a whole number of at least 1, got {draws!r}.")
        x, observed, beside = self._rows.read(rows, "impute")
        seeds = itertools.count(seed + 1)
        completed = redrawn(
            inference.impute(self.network, x, observed, seed, draws=draws), self._rows.conversion,
            lambda at: inference.impute(self.network, x[at], observed[at], next(seeds), draws=draws),
            seed=seed, given=beside.given,
        )  # fmt: skip
        return self._rows.write(completed[0] if draws == 1 else completed, beside, seed)

    def denoise(self, rows: Data, sigma: float) -> Data:
        """The expected clean rows, given Gaussian noise.

            model.denoise(images + 25.0 * np.random.randn(*images.shape), sigma=25.0)

        Arguments:
            rows: Noisy rows; images as floats.
            sigma: Standard deviation of the noise: grey levels of images, standard deviations of a table's columns.
        """
        self._require("denoise")
        if not (np.isfinite(sigma) and sigma > 0):
            raise ValueError(f"sigma must be a positive number, got {sigma!r}.")
        x, _, beside = self._rows.read(rows, "denoise")
        return self._rows.write(inference.denoise(self.network, x, float(sigma)), beside)

    def save(self, folder: str | Path) -> Path:
        """Write the model's folder, whole or not at all: what the pipeline writes, and `fivefold.load` reads.

        model.save("income.model")
        """
        model_folder.save(self.network, folder, self.facts)
        return Path(folder)

    def _require(self, task: str) -> None:
        if task not in self.tasks:
            raise ValueError(f"the family {self.family} cannot {task}; it can: {', '.join(self.tasks)}.")


def load(folder: str | Path, device: str = "cpu") -> Model:
    """A model that `Model.save` or the pipeline wrote (`runs/<dataset>/models/<family>`), its files checked.

        model = fivefold.load("runs/digits/models/flow")

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a file was altered.
    """
    return Model(*model_folder.load(folder, device))
