"""The likelihood paradox: models of textured images give smooth ones a higher likelihood, yet must call them odd.

Nalisnick et al. (2019), https://arxiv.org/abs/1810.09136
"""

from __future__ import annotations

import io
import math
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from models import FAMILIES, Batch, Streams, build

CONFIGS = {
    "autoencoder": {"latent": 16, "width": 16},
    "vae": {"latent": 16, "width": 16},
    "gan": {"latent": 16, "width": 16, "critic_width": 16, "features": 32},
    "flow": {"steps": 3, "width": 24, "embed": 8},
    "diffusion": {"width": 16, "embed": 32},
}


def auroc(normal: torch.Tensor, odd: torch.Tensor) -> float:
    """Chance that an odd example scores higher than a normal one."""
    above = (odd[:, None] > normal).double() + 0.5 * (odd[:, None] == normal).double()
    return float(above.mean())


def trained(family: str, x: torch.Tensor, *, steps: int, batch: int):
    """A model after so many steps with Adam."""
    torch.manual_seed(0)
    _, height, width, channels = x.shape
    domain = {"kind": "image", "channels": channels, "height": height, "width": width, "levels": 256}
    model = build({"family": family, "config": CONFIGS[family], "domain": domain, "classes": 0})
    model.initialize(Batch(x[:512]), Streams.seeded("initialize"))
    optimizers = [torch.optim.Adam(objective.parameters(), 2e-3, (0.5, 0.99)) for objective in model.objectives()]
    for step in range(steps):
        part = torch.randint(len(x), (batch,), generator=torch.Generator().manual_seed(step))
        for objective, optimizer in zip(model.objectives(), optimizers, strict=True):
            optimizer.zero_grad()
            objective(Batch(x[part], seen=step * batch), Streams.seeded(step)).total.mean().backward()
            torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
            optimizer.step()
    model.eval().finalize(Batch(x[:1024]), Streams.seeded("finalize"))
    return model


def check(family: str, x: torch.Tensor, held_out: torch.Tensor, smooth: dict[str, torch.Tensor], **training) -> None:
    model = trained(family, x, **training)
    normal = model.anomaly_score(held_out, Streams.seeded(1))
    for name, odd in smooth.items():
        found = auroc(normal, model.anomaly_score(odd, Streams.seeded(1)))
        print(f"{family}: anomaly score of {name}: AUROC {found:.3f}")
        assert found > 0.9, (name, found)
        if family == "flow":  # what the score must not be
            raw = auroc(-model.log_prob(held_out, Streams.seeded(2)), -model.log_prob(odd, Streams.seeded(2)))
            print(f"{family}: raw likelihood of {name}: AUROC {raw:.3f}")
            assert raw < 0.5, (name, raw)


def textures(n: int, seed: int) -> torch.Tensor:
    """8x8 patches of oriented waves and grain, uint8."""
    g = torch.Generator().manual_seed(seed)
    angle, phase = torch.rand(n, 1, 1, generator=g) * math.pi, torch.rand(n, 1, 1, generator=g) * 2 * math.pi
    axis = torch.arange(8.0)
    wave = torch.sin(1.8 * (angle.cos() * axis[:, None] + angle.sin() * axis) + phase)
    level = 127 + 30 * torch.randn(n, 1, 1, generator=g)
    grey = level + 45 * wave + 15 * torch.randn(n, 8, 8, generator=g)
    return grey.round().clamp(0, 255).to(torch.uint8)[..., None]


def flat(n: int, *shape: int) -> torch.Tensor:
    """Patches of one grey with a slight slope, uint8."""
    g = torch.Generator().manual_seed(9)
    level = 127 + 30 * torch.randn(n, 1, 1, 1, generator=g)
    slope = torch.linspace(-4, 4, shape[1])[:, None] * torch.randn(n, 1, 1, 1, generator=g)
    return (level + slope).expand(n, *shape).round().clamp(0, 255).to(torch.uint8)


QUICK = ("autoencoder", "flow")


@pytest.mark.parametrize("family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
def test_flat_patches_are_anomalies_among_textures(family):
    check(family, textures(4000, 0), textures(500, 1), {"flat patches": flat(500, 8, 8, 1)}, steps=150, batch=128)


DATASETS = Path(os.environ.get("FIVEFOLD_DATASETS", Path(__file__).parents[3] / "shared" / "datasets"))
"""Where the archives of photographs and digits lie, if they do."""


def pixels(content: bytes, mode: str, side: int) -> torch.Tensor:
    """A picture in a file, uint8 `[side, side, channels]`."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return torch.frombuffer(bytearray(image.convert(mode).tobytes()), dtype=torch.uint8).reshape(side, side, -1)


def photographs() -> torch.Tensor:
    """The test split of CIFAR-10, in random order."""
    with tarfile.open(DATASETS / "cifar10-jpg.tar.gz") as archive:
        files = (archive.extractfile(member) for member in archive if member.name.startswith("cifar10/test/"))
        found = torch.stack([pixels(file.read(), "RGB", 32) for file in files if file])
    return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))]


def digits(n: int) -> torch.Tensor:
    """Handwritten digits in the middle of 32x32 colour images."""
    with zipfile.ZipFile(DATASETS / "mnist-10k.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")][:n]
        found = torch.stack([pixels(archive.read(name), "L", 28) for name in names])
    return torch.nn.functional.pad(found, (0, 0, 2, 2, 2, 2)).expand(-1, -1, -1, 3).contiguous()


@pytest.mark.slow
@pytest.mark.skipif(not DATASETS.exists(), reason="no datasets: set FIVEFOLD_DATASETS")
@pytest.mark.parametrize("family", list(FAMILIES))
def test_digits_and_flat_patches_are_anomalies_among_photographs(family):
    x = photographs()
    smooth = {"handwritten digits": digits(300), "flat patches": flat(300, 32, 32, 3)}
    check(family, x[300:], x[:300], smooth, steps=250, batch=64)
