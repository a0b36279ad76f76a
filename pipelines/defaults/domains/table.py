"""Settings that suit rows of tables."""

from __future__ import annotations

from pipelines.defaults.base import ADVERSARIAL, FREE_BITS, LR, NOISE, KindRules, Rules
from pipelines.defaults.facts import Facts

COST = {"autoencoder": 0.18, "vae": 0.26, "gan": 0.42, "flow": 0.27, "diffusion": 0.42}
"""Processor seconds of one core per 1,000 rows of 15 columns, with the settings below."""


class TableRules(KindRules):
    """By the number of rows and columns."""

    def rules(self, facts: Facts) -> dict[str, Rules]:
        return _table(facts)

    def seconds_per_thousand(self, family: str, facts: Facts) -> float:
        return COST.get(family, 0.0) * max(1, facts.columns) / 15


def _table(facts: Facts) -> dict[str, Rules]:
    """Measured on `adult` and `mammography`; their recipes have the figures."""
    columns = max(1, facts.columns)
    most = round(600_000 * min(1.0, 16 / columns), -4)
    total = max(20_000, min(most, round(20 * facts.examples, -4))) if facts.examples else most
    training: Rules = {
        "training.total_examples": (
            total,
            f"20 passes over the rows, at most {most:,.0f}: a row costs what its columns do",
        ),
        "training.batch_size": facts.batch(256),
        "training.lr": 2e-3,
        "search.training.lr": LR,
    }
    samples = min(5_000, max(500, round(facts.examples / 2, -2))) if facts.examples else 5_000
    latent = (32, "long codes: what they drop, draws of missing cells cannot know")
    return {
        "features": {"samples": (samples, "rows in the floors and from the classical baseline")},
        "evaluate": {"samples": (samples, "rows are cheap: more of them tell more")},
        "tune": {"trials": 3, "part": 0.06},
        "autoencoder": {
            "model.latent": latent, "model.width": 64, "model.code_penalty": 0.01, **training,
            "search.model.noise": NOISE,
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
            **training, "training.evaluations": 4,
        },
    }  # fmt: skip
