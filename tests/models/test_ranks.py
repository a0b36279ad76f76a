"""Grids of one and three axes (sound, volumes) go through every family as images do; families do not ask which."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from specs import spec_of

from models import FAMILIES, Batch, Streams, build, tasks
from models.domains import DOMAINS, Sound, Volume
from models.networks.convolutional import Patches, coarsened, fold, pyramid, refined, unfold

SMALL = {
    "autoencoder": {"latent": 4, "width": 8},
    "vae": {"latent": 4, "width": 8},
    "gan": {"latent": 4, "width": 8, "critic_width": 8, "features": 8, "shift": 0.2, "inversion_steps": 2},
    "flow": {"steps": 2, "width": 8, "embed": 8, "components": 6},
    "diffusion": {"width": 8, "embed": 16, "steps": 4},
}
GRIDS = {
    "sound": ({"kind": "sound", "channels": 1, "length": 16, "levels": 256}, (16, 1)),
    "volume": ({"kind": "volume", "channels": 1, "depth": 4, "height": 4, "width": 6, "levels": 2}, (4, 4, 6, 1)),
}


@pytest.mark.parametrize("grid", list(GRIDS))
@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_grid_of_any_rank_is_learned_sampled_and_filled_in(family, grid, monkeypatch):
    monkeypatch.setitem(DOMAINS, "sound", Sound)
    monkeypatch.setitem(DOMAINS, "volume", Volume)
    spec, shape = GRIDS[grid]
    torch.manual_seed(0)
    model = build(spec_of(family, SMALL[family], domain=spec, classes=2))
    label = torch.arange(24) % 2
    high = torch.full((24, *shape), 255, dtype=torch.uint8)
    x = high * label.reshape(-1, *[1] * len(shape)).to(torch.uint8)  # class 0 all low, class 1 all high
    x[:, 0] = 255 - x[:, 0]
    batch = Batch(x, label)
    model.initialize(batch, Streams.seeded("initialize"))
    for objective in model.objectives():
        losses = objective(batch, Streams.seeded(0, ranks=range(8)))
        losses.total.mean().backward()
        assert all(parameter.grad is not None for parameter in objective.parameters())
    model.eval().finalize(batch, Streams.seeded("finalize"))
    drawn = model.sample(5, torch.tensor([0, 1, 0, 1, -1]), Streams.seeded(1))
    assert drawn.dtype == torch.uint8
    assert drawn.shape == (5, *shape)
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[:, 1] = False
    filled = model.impute(x, observed, Streams.seeded(2), draws=2)
    assert filled.shape == (2, *x.shape)
    assert torch.equal(filled[:, observed], x[observed].expand(2, -1))
    assert model.anomaly_score(x, Streams.seeded(3)).shape == (24,)
    if "log_prob" in tasks(model):
        assert torch.isfinite(model.log_prob(x, Streams.seeded(4))).all()


@pytest.mark.parametrize("architecture", ["glow", "realnvp", "autoregressive"])
def test_an_architecture_that_there_is_not_of_a_sound_is_refused(architecture, monkeypatch):
    monkeypatch.setitem(DOMAINS, "sound", Sound)
    spec = {"family": "flow", "config": {"architecture": architecture}, "domain": GRIDS["sound"][0], "classes": 0}
    with pytest.raises(ValueError, match=f"architecture: {architecture} is (not for a|for tables, got a) sound"):
        build(spec)


@pytest.mark.parametrize("size", [(7,), (13, 20), (5, 33), (3, 9, 17)], ids=str)
@pytest.mark.parametrize("patch", [0, 1, 3])
def test_a_grid_of_any_size_comes_back_from_its_patches_and_its_pyramid_covers_it(size, patch):
    """Padding is zeros behind the last places; a mean over all places of a constant grid is the constant."""
    x = torch.rand(2, 3, *size)
    patches = Patches(size, patch)
    folded = patches.fold(x)
    assert folded.shape == (2, 3 * patches.volume, *patches.places)
    assert torch.equal(patches.unfold(folded), x)
    assert float(folded.sum()) == pytest.approx(float(x.sum()), rel=1e-4)
    h = torch.full((1, 1, *patches.places), 2.5)
    for now in pyramid(patches.places)[1:]:
        h = coarsened(h, now)
        assert h.shape[2:] == now
        assert (h == 2.5).all()
    for then in reversed(pyramid(patches.places)):
        h = refined(h, then)
        assert h.shape[2:] == then


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_folding_takes_blocks_apart_and_puts_them_together(rank):
    x = torch.arange(2 * 3 * 4**rank, dtype=torch.float32).reshape(2, 3, *[4] * rank)
    folded = fold(x, [2] * rank)
    assert folded.shape == (2, 3 * 2**rank, *[2] * rank)
    corner = (1, 2, *[2] * rank)  # the last channel's block at the far corner, place 0 of it
    assert folded[(1, 2 * 2**rank, *[1] * rank)] == x[corner]
    assert torch.equal(unfold(folded, [2] * rank), x)


KINDS = '"(image|table|sound|volume|grid)"'
QUESTION = re.compile(
    rf"""isinstance\([^)]*\b(Grid|Image|Table|Sound|Volume)\b|kind("\])? (==|!=) {KINDS}|kind("\])? in \({KINDS}|"""
    rf"""{KINDS} if |else {KINDS}|case {KINDS}|len\([\w.]*shape\) (==|!=) [1-5]|looks_at_masks"""
)
ANSWERING = ("/domains/", "models/networks/", "data/readers/")


def questions(folder: str) -> list[str]:
    """Lines that ask what the data are, outside the rooms whose business it is."""
    root = Path(__file__).resolve().parents[2]
    found = []
    for path in sorted((root / folder).rglob("*.py")):
        where = path.relative_to(root).as_posix()
        if any(room in where for room in ANSWERING):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if QUESTION.search(line.split("#")[0]):
                found.append(f"{where}:{number}: {line.strip()}")
    return found


@pytest.mark.parametrize("folder", ["models", "data", "pipelines"])
def test_nobody_asks_what_the_data_are(folder):
    """Answers stand in the files of the kinds of data, and in the readers, which are one per format."""
    assert questions(folder) == []
