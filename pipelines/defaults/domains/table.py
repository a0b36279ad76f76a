"""Settings that suit rows of tables."""

from __future__ import annotations

from pipelines.defaults.base import ADVERSARIAL, FREE_BITS, LR, NOISE, KindRules, Rules
from pipelines.defaults.facts import Facts

COST = {"autoencoder": 0.18, "vae": 0.26, "gan": 0.42, "flow": 0.27, "diffusion": 0.42}
"""Processor seconds of one core per 1,000 rows of 15 columns, with the settings below and batches of 256."""

SMALLER = {16: 3.0, 32: 2.0, 64: 1.4}
"""What a row costs more in smaller batches, with dropout."""

FEW = 5_000
"""Rows below which a batch is a small part of them, and dropout keeps them from being learned by heart."""

PASSES, ENOUGH = 50, 100_000
"""Times that few rows are seen, and examples at most."""


class TableRules(KindRules):
    """By the number of rows and columns."""

    def rules(self, facts: Facts) -> dict[str, Rules]:
        return _table(facts)

    def seconds_per_thousand(self, family: str, facts: Facts) -> float:
        smaller = SMALLER[_few_rows_batch(facts)] if 0 < facts.examples < FEW else 1.0
        return COST.get(family, 0.0) * smaller * max(1, facts.columns) / 15


def _few_rows_batch(facts: Facts) -> int:
    """At most a fifteenth of few rows: fifty passes are then some thousand updates."""
    return next((size for size in (64, 32) if facts.examples >= 15 * size), 16)


def _training(facts: Facts) -> Rules:
    """How long, in which batches, and what keeps few rows from being learned by heart."""
    most = round(600_000 * min(1.0, 16 / max(1, facts.columns)), -4)
    if not 0 < facts.examples < FEW:
        total = max(20_000, min(most, round(20 * facts.examples, -4))) if facts.examples else most
        why = f"20 passes over the rows, at most {most:,}: a row costs what its columns do"
        return {"training.total_examples": (total, why), "training.batch_size": facts.batch(256)}
    size = _few_rows_batch(facts)
    most = min(ENOUGH, round(most / SMALLER[size], -3))
    total = max(4_000, min(most, round(PASSES * facts.examples, -3)))
    why = (
        f"{PASSES} passes over few rows, at most {most:,}: fewer leave relations between columns unlearned, many more "
    )
    return {
        "training.total_examples": (total, why + "learn rows by heart"),
        "training.batch_size": (
            min(size, facts.batch(size)),
            "a fifteenth of few rows at most: relations take some thousand updates",
        ),
        "training.evaluations": (3, "the best of many is an early one by luck: few rows tell models apart badly"),
        "model.dropout": (0.2 if facts.examples < 1_000 else 0.1, "without, few rows are learned by heart"),
    }


def _table(facts: Facts) -> dict[str, Rules]:
    """Measured on `adult` and `mammography` (their recipes have the figures) and on parts of them and of two others."""
    training: Rules = {**_training(facts), "training.lr": 2e-3, "search.training.lr": LR}
    samples = min(5_000, max(500, round(facts.examples / 2, -2))) if facts.examples else 5_000
    latent = (32, "long codes: what they drop, draws of missing cells cannot know")
    return {
        "features": {"samples": (samples, "rows in the floors and from the classical baseline")},
        "evaluate": {"samples": (samples, "rows are cheap: more of them tell more")},
        "tune": {"trials": 3, "part": 0.06},
        "autoencoder": {
            "model.latent": latent, "model.width": 64, "model.code_penalty": 0.05,
            "model.code_noise": (1.0, "cells rely on those before them, not on details of a code that draws get wrong"),
            "model.components": (2 if 0 < facts.examples < FEW else facts.per_class(8), "Gaussians per class"),
            **training, "search.model.noise": NOISE,
        },
        "vae": {
            "model.latent": latent, "model.width": 64, "model.beta": (0.5, "1 makes blander rows, and a tighter bound"),
            **training, "search.model.free_bits": FREE_BITS,
        },
        "gan": {
            "model.width": (64, "as many units as the others"), "model.critic_width": 64, "model.gamma": 0.5,
            **training, **ADVERSARIAL, "training.lr": 5e-4,
        },
        "flow": {"model.width": (64, "of a cell: every column is drawn given those before it"), **training},
        "diffusion": {
            "model.width": 64, "model.blocks": (2, "deeper costs little on rows"),
            "model.p_mean": (-0.5, "more noise in training: better conditionals"), "model.p_std": 1.4,
            "training.evaluations": 4, **training,
        },
    }  # fmt: skip
