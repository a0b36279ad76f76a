"""Images and their networks: spaces, likelihoods and textures against enumeration, networks against torch's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_tables import seeded
from torch import nn

from models import Batch, Streams, build
from models.domains.grid import Image
from models.networks.convolutional import Attention, Residual
from models.networks.dropout import dropout
from models.networks.embeddings import LabelEmbedding


def one_pixel(levels: int) -> tuple[Image, torch.Tensor]:
    """Images of one pixel, and one of each level."""
    x = (torch.arange(levels) * 255 / (levels - 1)).round().to(torch.uint8).reshape(-1, 1, 1, 1)
    return Image(channels=1, height=1, width=1, levels=levels), x


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_every_level_has_its_place_and_comes_back(levels):
    image, x = one_pixel(levels)
    y = image.to_model(x).flatten()
    assert torch.allclose(y, torch.linspace(-1, 1, levels), atol=1e-6)
    flow, _ = image.dequantize(x, Streams.seeded(0))
    for back in (image.to_data(image.to_model(x)), image.quantize(flow), image.quantize(image.cell_center(x))):
        assert torch.equal(back, x)
    beyond = image.to_data(torch.tensor([-9.0, 9.0]).reshape(2, 1, 1, 1))
    assert beyond.flatten().tolist() == [0, 255]


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_every_level_is_as_likely_under_a_logistic_density(levels):
    """The logit squeezes the unit interval to 95 % of itself: under the standard logistic each level has 0.95 / L."""
    image, x = one_pixel(levels)
    flow, log_det = image.dequantize(x, Streams.seeded(0))
    flow = flow.flatten().double()
    log_p = nn.functional.logsigmoid(flow) + nn.functional.logsigmoid(-flow) + log_det
    assert torch.allclose(log_p, torch.tensor(math.log(0.95 / levels)).double(), atol=1e-4)
    assert flow.exp().log1p().isfinite().all()


def test_hidden_pixels_count_neither_as_values_nor_as_levels():
    """Under the logistic a known pixel has 0.95 / L and a hidden one 0.95, whatever was drawn for it."""
    image = Image(channels=1, height=4, width=4, levels=16)
    x = torch.randint(16, (1, 4, 4, 1), generator=seeded()).expand(4, -1, -1, -1) * 17.0
    for row, hidden in enumerate((0, 3, 10, 16)):
        gappy = x.clone()
        gappy[row].view(-1)[:hidden] = torch.nan
        flow, log_det = image.dequantize(gappy, Streams.seeded(0))
        density = (nn.functional.logsigmoid(flow) + nn.functional.logsigmoid(-flow)).flatten(1).sum(1)
        expected = 16 * math.log(0.95) - (16 - hidden) * math.log(16)
        assert float((density + log_det)[row]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("scale", [-3.0, 1.0, 3.0])
def test_draws_from_the_likelihood_of_pixels_are_as_frequent_as_it_says(scale):
    """Narrow, ordinary and very broad logistics, two in a mixture; probabilities of all levels add up to one."""
    image, x = one_pixel(9)
    likelihood = image.likelihood(2)
    raw = torch.tensor([0.0, 1.0, -0.45, 0.6, scale, scale + 0.5]).reshape(1, 6, 1, 1)
    p = likelihood.log_prob(raw.expand(9, -1, -1, -1), x).exp().flatten()
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    drawn = image.to_data(likelihood.sample(raw.expand(20_000, -1, -1, -1), Streams.seeded(0))).flatten()
    found = torch.stack([(drawn == level).double().mean() for level in x.flatten()])
    assert (found - p).abs().max() < 0.015
    mean = (-0.45 + 0.6 * math.e) / (1 + math.e)  # weights 1 to e
    assert float(likelihood.mean(raw)) == pytest.approx(mean, abs=1e-5)
    gap = torch.full((1, 1, 1, 1), torch.nan)
    assert float(likelihood.log_prob(raw, gap)) == 0


def test_squared_error_is_that_of_the_known_pixels():
    image = Image(channels=1, height=1, width=2)
    x = torch.tensor([0.0, torch.nan]).reshape(1, 1, 2, 1)
    found = image.reconstruction().log_prob(torch.tensor([0.5, 9.0]).reshape(1, 1, 1, 2), x)
    assert found.flatten().tolist() == pytest.approx([-2.25, 0.0])


def test_texture_of_an_edge_is_the_hand_computed_one():
    """Four columns, 0 0 100 100: at the first scale 4 steps of 100 among 24 (and one of 0), at the second 2 among 4."""
    image = Image(channels=1, height=4, width=4)
    edge = torch.tensor([0, 0, 100, 100], dtype=torch.uint8).reshape(1, 1, 4, 1).expand(1, 4, 4, 1)
    expected = []
    for steps, places in ((4, 25), (2, 5)):
        expected += [steps * math.log1p(1e4) / places, math.log1p(steps * 1e4 / places)]
    assert np.allclose(image.texture(edge), expected, rtol=1e-3)
    assert np.allclose(image.texture(edge.transpose(1, 2)), expected, rtol=1e-3)
    assert np.allclose(image.texture(edge * 0 + 77), 0, atol=1e-3)


# Networks


@pytest.mark.parametrize("norm", [True, False], ids=["fused", "differentiated twice"])
@pytest.mark.parametrize("heads", [1, 2, 8])
def test_attention_is_torchs_multihead_attention(norm, heads):
    torch.manual_seed(0)
    ours, theirs = Attention(8, norm=norm, heads=heads), nn.MultiheadAttention(8, heads, batch_first=True)
    for parameter in ours.parameters():
        parameter.data = torch.randn_like(parameter)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight[:, :, 0, 0])
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.out.weight[:, :, 0, 0])
        theirs.out_proj.bias.copy_(ours.out.bias)
        x = torch.randn(3, 8, 2, 3)
        h = ours.norm(x).flatten(2).transpose(1, 2)
        expected = x + theirs(h, h, h)[0].transpose(1, 2).reshape(x.shape)
        assert torch.allclose(ours(x), expected, atol=1e-4)


@pytest.mark.parametrize(("attention", "far"), [(15, False), (16, True)])
def test_a_denoiser_attends_up_to_the_size_asked_for(attention, far):
    """On 16x16 pixels, unfolded: only attention at the finest level takes all of its places as they are."""
    torch.manual_seed(0)
    image = Image(channels=1, height=16, width=16)
    unet = image.denoiser(width=8, embed=6, patch=1, attention=attention, heads=2)
    seen = []
    for module in unet.modules():
        if isinstance(module, Attention):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2:].numel()))
    unet(torch.randn(2, 1, 16, 16), torch.randn(2, 6))
    assert sorted(seen) == sorted([16] + [16, 16, 64, 64] + 2 * far * [256])  # the middle, then down and up


def test_dropout_of_a_denoiser_sets_its_share_to_zero_in_training_and_nothing_else():
    torch.manual_seed(0)
    spec = {"kind": "image", "channels": 1, "height": 16, "width": 16, "levels": 256}
    config = {"width": 8, "dropout": 0.25, "label_dropout": 0.0}
    model = build({"family": "diffusion", "config": config, "domain": spec, "classes": 0})
    entered = []
    for block in model.modules():
        if isinstance(block, Residual):
            block.conv2.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0].detach().flatten()))
    x = torch.randint(256, (32, 16, 16, 1), dtype=torch.uint8)

    def loss(seed):
        entered.clear()
        total = model.objectives()[0](Batch(x), Streams.seeded(seed)).total
        return total, torch.cat(entered)

    zeros = (loss(0)[1] == 0).double().mean().item()
    assert zeros == pytest.approx(0.25, abs=0.005)
    assert torch.equal(loss(0)[1], loss(0)[1])
    assert not torch.equal(loss(0)[1] == 0, loss(1)[1] == 0)
    kept = dropout(0.25, Streams.seeded(0))(torch.full((1000, 4), 3.0))
    assert kept.unique().tolist() == [0, 4]
    entered.clear()
    model.sample(2, None, Streams.seeded(0), steps=2)
    assert (torch.cat(entered) == 0).double().mean() < 1e-3


def test_an_unknown_label_has_a_vector_of_its_own():
    torch.manual_seed(0)
    embedding = LabelEmbedding(3, 4)
    vectors = embedding(torch.tensor([0, 1, 2, -1]), 4)
    assert len(vectors.unique(dim=0)) == 4
    assert torch.equal(embedding(None, 2), vectors[3].expand(2, -1))


@pytest.mark.parametrize(("height", "width", "channels"), [(5, 3, 1), (7, 7, 1), (13, 17, 3), (16, 16, 1), (20, 12, 3)])
def test_networks_of_images_keep_their_sizes_and_hear_their_condition(height, width, channels):
    """Every output of a U-Net depends on its pixel, on one far away (or attention is lost) and on the condition."""
    torch.manual_seed(0)
    image = Image(channels=channels, height=height, width=width)
    networks = [image.denoiser(width=8, embed=6), image.decoder(5, width=8, embed=6, parameters=2)]
    networks.append(image.encoder(7, width=8))
    for network in networks:
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    unet, decoder, encoder = networks
    y, c, z = torch.randn(2, channels, height, width), torch.randn(2, 6), torch.randn(2, 5)
    with torch.no_grad():
        out = unet(y, c)
        assert out.shape == y.shape
        assert decoder(z, c).shape == (2, 2 * channels, height, width)
        assert encoder(y).shape == (2, 7)
        moved = y.clone()
        moved[0, 0, 0, 0] += 1
        change = (unet(moved, c) - out).abs()
        assert (change[0].amax(0) > 0).all()
        assert change[1].max() < 1e-5  # examples do not mix
        for one, other in ((unet(y, c), unet(y, c.flip(0))), (decoder(z, c), decoder(z, c.flip(0)))):
            assert (one - other).abs().max() > 1e-3
        assert (encoder(moved) - encoder(y))[0].abs().min() > 0
