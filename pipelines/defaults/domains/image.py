"""Settings that suit images."""

from __future__ import annotations

import math

from pipelines.defaults.base import ADVERSARIAL, FREE_BITS, LR, MINUTES, NOISE, KindRules, Rules
from pipelines.defaults.facts import Facts

COST = {
    "autoencoder": (0.36, 0.84, 3.8),
    "vae": (0.39, 1.0, 9.2),
    "gan": (0.56, 4.6, 10.4),
    "flow": (0.44, 1.2, 1.3),
    "diffusion": (0.62, 3.0, 9.8),
}
"""Processor seconds of one core per 1,000 training examples with the settings below: of 8x8 and of 28x28 grey images,
and of 64x64 colour ones. Measured over a few updates; evaluations come on top."""

COST_ON_GPU = {
    "autoencoder": (0.27, 0.3),
    "vae": (0.11, 0.114),
    "gan": (0.35, 0.66),
    "flow": (0.2, 0.41),
    "diffusion": (0.21, 0.29),
}
"""Seconds of an H100 per 1,000 training examples with the settings for GPUs: of 28x28 grey images, and of 64x64 colour
ones. Measured over 24 updates; older GPUs take longer."""

BUDGET = 450
"""Processor seconds of `MINUTES` on two cores that go into updates; the rest is evaluations, and waiting."""

STROKES = 0.75
"""Contrast (see `Facts`) from which small images are strokes on an empty ground. A GAN that starts from Gaussians
leaves them for worse there: after 16,000 examples of 28x28 distances from Gaussians and from noise are 10.8 and 4.5 of
digits (contrast .84), but 4.9 and 6.2 of clip art (.54), .7 and 10.3 of faces (.33)."""

SMALL = 256
"""Values of an image below which it is small: digits of 8x8, icons."""


def is_small(facts: Facts) -> bool:
    """Whether an image is small, or of unknown size."""
    return not facts.shape or facts.values < SMALL


class ImageRules(KindRules):
    """By size, channels, number of examples and device."""

    def rules(self, facts: Facts) -> dict[str, Rules]:
        if is_small(facts):
            return _small_image(facts)
        return _image_on_gpu(facts) if facts.cuda else _image(facts)

    def seconds_per_thousand(self, family: str, facts: Facts) -> float:
        """Between the sizes measured, and beyond, a power of the number of values."""
        if family not in COST:
            return 0.0
        small, grey, colour = COST[family]
        if is_small(facts):
            return small * max(facts.values, 16) / 64
        if facts.cuda:
            grey, colour = COST_ON_GPU[family]
        power = math.log(colour / grey) / math.log(12_288 / 784)
        return grey * (facts.values / 784) ** power

    def useful_cores(self, facts: Facts, cores: int) -> int:
        """Small images train on one, and more than four hardly help; a GPU is one."""
        return 1 if is_small(facts) or facts.cuda else min(4, cores)


def _small_image(facts: Facts) -> dict[str, Rules]:
    """Measured on 8x8 digits, of which each family sees as many as a minute on one core allows."""

    def training(total: int, batch: int) -> Rules:
        return {"training.total_examples": facts.total(total), "training.batch_size": facts.batch(batch)}

    return {
        "tune": {"trials": 3, "part": 0.06},
        "autoencoder": {
            "model.latent": 16, "model.width": 32, "model.code_penalty": 0.01, **training(80_000, 256),
            "training.lr": 2e-3, "search.training.lr": LR, "search.model.noise": NOISE,
        },
        "vae": {
            "model.latent": 12, "model.width": 32, "model.beta": (0.5, "sharper images; 1 for a tighter bound"),
            **training(80_000, 256), "training.lr": 2e-3, "search.training.lr": LR, "search.model.free_bits": FREE_BITS,
        },
        "gan": {
            **ADVERSARIAL, "model.gamma": 0.1, "model.patch": 2, "model.width": 48, "model.critic_width": 48,
            **training(70_000, 64), "training.lr": 1e-3,
        },
        "flow": {
            "model.steps": 8, "model.width": 64, **training(80_000, 256), "training.lr": 2e-3, "search.training.lr": LR,
        },
        "diffusion": {
            "model.width": 32, **training(70_000, 128), "training.lr": 2e-3, "training.evaluations": 4,
            "search.training.lr": LR,
        },
    }  # fmt: skip


def _image(facts: Facts) -> dict[str, Rules]:
    """On CPUs. Measured on 28x28 grey; larger images are folded until they cost about as much per place and layer."""
    coarse, fine = facts.patch(7, 4), facts.patch(14, 4)
    wide, narrow, large = facts.width(coarse, 64, 49), facts.width(fine, 32, 196), facts.side >= 48
    whole = fine**2 * facts.shape[2]
    codes = 64 if facts.values > 1_024 else 16  # the mixture over 64 is at 7.0 of 28x28 digits, not 3.6
    precision: Rules = {}
    if facts.bf16:
        precision = {"training.precision": ("bf16", "this machine multiplies in it: 1.4 to 1.7 times the speed")}

    def training(family: str, batch: int, lr: float) -> Rules:
        cost = ImageRules().seconds_per_thousand(family, facts)
        total = facts.total(int(round(BUDGET / cost, -1)) * 1_000)
        why = f"{MINUTES} minutes on two cores, at {cost:.2g} s of one for 1,000 images"
        return {
            "training.total_examples": (total, why),
            "training.batch_size": (facts.batch(batch), "small batches: updates are what is short"),
            "training.lr": lr,
            "training.evaluations": (2, "each finishes the model and draws from it: as long as many updates"),
        }

    def few(most: int) -> int:
        return 32 if large else most

    def folded(patch: int) -> tuple[int, str]:
        places = "x".join(str(side // patch) for side in facts.shape[:2])
        return patch, f"{patch}x{patch} pixels become channels, so that convolutions see {places} places"

    settings: dict[str, Rules] = {
        "tune": {
            "enabled": (False, "trials would cost a fifth of the training; with more time than minutes, turn it on"),
            "trials": 3,
            "part": 0.06,
        },
        "autoencoder": {
            "model.latent": codes, "model.width": wide, "model.patch": folded(coarse),
            "model.noise": 0.1, "model.code_penalty": 0.01,
            "model.components": (facts.per_class(12), "Gaussians per class; 12 instead of 4: distance 0.99, not 1.18"),
            **training("autoencoder", few(128), 2e-3), **precision,
            "search.training.lr": LR, "search.model.noise": NOISE,
        },
        "vae": {
            "model.latent": 64, "model.width": wide, "model.patch": folded(coarse),
            "model.beta": (0.5, "sharper images; 1 for a tighter bound"), "model.free_bits": 0.05,
            "model.prior_components": facts.per_class(4),
            **training("vae", few(128), 2e-3), **precision,
            "search.training.lr": LR, "search.model.free_bits": FREE_BITS,
        },
        "gan": {
            **ADVERSARIAL, "model.gamma": 0.3,
            "model.latent": 64, "model.width": narrow, "model.critic_width": narrow, "model.patch": folded(fine),
            **training("gan", few(64), 1e-3), **precision,
        },
        "flow": _image_flow(facts) | training("flow", 256 if facts.values <= 1_024 else 64, 1e-3),
        "diffusion": {
            "model.width": (max(narrow, whole), "no fewer than the values of a patch, or noise stays in the samples"),
            "model.patch": folded(fine),
            "model.p_mean": (-0.5, "shapes are decided at higher noise than texture"), "model.p_std": 1.1,
            **training("diffusion", few(64), 2e-3), **precision, "search.training.lr": LR,
        },
    }  # fmt: skip
    for family, rules in _from_components(facts, codes).items():
        if family != "gan" or facts.values > 1_024 or facts.contrast < STROKES:
            settings[family] |= rules
    if 0 < facts.examples < 3_000:
        settings["gan"]["model.shift"] = (0.1, "few images: shifted ones keep the critic from learning them by heart")
    if large:
        settings["features"] = {
            "examples": (20_000, "that the classifiers see: an image of this size costs four of 28x28"),
            "samples": (1_000, "as many as are drawn of a family"),
        }
        settings["evaluate"] = {"samples": (1_000, "drawing is what takes time")}
    return settings


def _from_components(facts: Facts, codes: int) -> dict[str, Rules]:
    """Where networks start, which minutes are too few to learn from nothing."""

    def principal(most: int, why: str, gaussians: int = 0) -> Rules:
        return {"model.principal": (_components(facts, most, gaussians), why)}

    return {
        "autoencoder": principal(codes, "to start from; faces of 64x64: distance 2.9, not 13; of 28x28: .6, not 2.4"),
        "vae": principal(64, "to start from; faces of 64x64: distance 2.5, not 35; of 28x28: .8, not 9.8"),
        "gan": {
            **principal(128, "with a Gaussian per class on them, to start from", 1), "model.latent": 128,
            "training.lr": 5e-4, "model.gamma": 1.0,
            "model.generator_rate": (0.1, "with 1 it leaves a good start faster than the critic learns what is wrong"),
        },
        "diffusion": {
            **principal(256, "with Gaussians per class, to start from; faces of 28x28: distance .4, not 22", 4),
            "sampling.detail": (0.3, "less of the noise that details start with"),
        },
    }  # fmt: skip


def _components(facts: Facts, most: int, gaussians: int = 0) -> int:
    """Principal components that so many examples tell, and of which as many Gaussians a class have 2^24 covariances."""
    if gaussians:
        most = min(most, math.isqrt(2**24 // (gaussians * max(1, facts.classes))))
    return min(most, facts.values, max(8, facts.examples // 20)) if facts.examples else most


def _image_flow(facts: Facts) -> Rules:
    """Along principal components: couplings between neighbours take longer than minutes."""
    return {
        "model.architecture": ("principal", "along principal components: distance 1.5, Glow 73; glow for density"),
        "model.components": _components(facts, 64), "model.coupling": "affine", "model.steps": 8, "model.width": 256,
        "sampling.temperature": 0.9, "sampling.detail": (0.3, "less of the noise that details are modelled with"),
        "training.weight_decay": 0.05, "search.training.lr": LR,
    }  # fmt: skip


def _image_on_gpu(facts: Facts) -> dict[str, Rules]:
    """On GPUs, as `recipes/cifar10.yaml` counts operations. The speed was measured on one, the figures were not."""

    def training(total: int, batch: int, lr: float) -> Rules:
        return {
            "training.total_examples": (
                facts.total(total),
                "10 to 30 minutes on an H100 at 28x28 to 32x32, up to an hour at 64x64",
            ),
            "training.batch_size": facts.batch(batch),
            "training.lr": lr,
            "training.ema_half_life": 250_000,
        }

    patch = facts.patch(28, 4)
    return {
        "features": {
            "examples": (facts.total(400_000, 20), "that the classifiers see"),
            "samples": (10_000, "as many as are drawn of a family"),
        },
        "evaluate": {"samples": (10_000, "a GPU draws them in a minute")},
        "tune": {"enabled": (False, "three trials cost a fifth of the training"), "trials": 3, "part": 0.06},
        "autoencoder": {
            "model.latent": 128, "model.width": 96, "model.blocks": 2, "model.patch": patch, "model.noise": 0.1,
            "model.code_penalty": 0.001, "model.components": facts.per_class(12), **training(5_000_000, 512, 1e-3),
        },
        "vae": {
            "model.latent": 128, "model.width": 96, "model.blocks": 2, "model.patch": patch, "model.beta": 1.0,
            "model.free_bits": 0.02, "model.components": 5, "model.prior_components": facts.per_class(4),
            **training(5_000_000, 512, 1e-3),
        },
        "gan": {
            **ADVERSARIAL, "model.gamma": 1.0 if facts.side >= 48 else 0.05, "model.latent": 64, "model.width": 96,
            "model.critic_width": 96, "model.patch": patch, "model.features": 256, **training(5_000_000, 256, 3e-4),
        },
        "flow": {
            "model.architecture": "glow", "model.steps": 16, "model.width": 256,
            "sampling.temperature": 0.9, **training(6_000_000, 512, 1e-3),
        },
        "diffusion": {
            "model.width": 128, "model.blocks": 2, "model.patch": patch, "model.embed": 512,
            **training(4_000_000, 512, 1e-3),
        },
    }  # fmt: skip
