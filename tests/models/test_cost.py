"""What a training step costs grows with the size of an image, odd or even; what is fitted after it has bounds: both
are counted, not timed."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models import FAMILIES, Batch, Streams, build, chunking

SMALL = {
    "autoencoder": {"width": 8, "latent": 8},
    "vae": {"width": 8, "latent": 8},
    "gan": {"width": 8, "critic_width": 8, "latent": 8, "features": 8, "attention": True, "loss": "hinge"},
    "flow": {"width": 8, "embed": 8},
    "diffusion": {"width": 8, "embed": 8},
}
SQUARES = [*range(3, 18), 24, 28, 31, 33, 63, 64, 65, 80, 127, 255, 256]
SIZES = [(5, 3), *((side, side) for side in SQUARES), (3, 256), (5, 67), (17, 64), (64, 65), (218, 178), (250, 16)]


@cache
def multiply_adds(family: str, height: int, width: int) -> int:
    """Of all objectives' losses of one image; a backward pass costs twice as many again."""
    domain = {"kind": "image", "channels": 1, "height": height, "width": width, "levels": 256}
    model = build({"family": family, "config": SMALL[family], "domain": domain, "classes": 0})
    x = torch.zeros(1, height, width, 1, dtype=torch.uint8)
    model.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        for objective in model.objectives():
            objective(Batch(x), Streams.seeded(0))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("family", FAMILIES)
def test_no_size_costs_more_than_a_larger_one(family):
    """Up to 1.3 times: than the next multiples of 16, and than any size with at least as many pixels on both axes."""
    cost = {size: multiply_adds(family, *size) for size in SIZES}
    for (height, width), found in cost.items():
        padded = multiply_adds(family, -(-height // 16) * 16, -(-width // 16) * 16)
        assert found <= 1.3 * padded, f"{height}x{width}: {found / padded:.2f} times its next multiples of 16"
        for other, larger in cost.items():
            if other[0] >= height and other[1] >= width:
                assert found <= 1.3 * larger, f"{height}x{width}: {found / larger:.2f} times {other[0]}x{other[1]}"


@pytest.mark.parametrize("family", FAMILIES)
def test_cost_per_pixel_does_not_grow_with_the_size(family):
    """Nothing is quadratic in the number of pixels, as attention over all of them would be."""
    per_pixel = [multiply_adds(family, *size) / (size[0] * size[1]) for size in ((65, 65), (218, 178), (255, 255))]
    assert max(per_pixel) <= 1.3 * per_pixel[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_fitted_after_training_looks_at_few_examples_at_once(family, monkeypatch):
    """No convolution is given more than the images that `VALUES` has room for, however many there are to fit to."""
    monkeypatch.setattr(chunking, "VALUES", 8 * 64)
    domain = {"kind": "image", "channels": 1, "height": 8, "width": 8, "levels": 17}
    model = build({"family": family, "config": SMALL[family], "domain": domain, "classes": 0}).eval()
    most = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_pre_hook(lambda _, given: most.append(len(given[0])))
    x = torch.randint(0, 17, (40, 8, 8, 1), generator=torch.Generator().manual_seed(0)) * 15
    model.finalize(Batch(x.to(torch.uint8)), Streams.seeded(0))
    assert 0 < max(most) <= 8
