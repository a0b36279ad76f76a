"""docs/benchmarks.md from what was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import mnist

from pipelines.evaluation.reference.reference import Reference

Result = dict[str, Any]

PEERS = {
    "autoencoder": "plain PyTorch: convolutions 32-64-128, 16 codes, Adam 1e-3, batch 256; scikit-learn mixture of 10",
    "vae": "pythae 0.1.2: its default networks (784-512-16), Adam 1e-3, batch 100; its sampler with a mixture of 10",
    "gan": "torchgan 0.1.0: DCGAN of 32 channels, non-saturating loss, Adam 2e-4 (0.5, 0.999), batch 128",
    "flow": "normflows 1.7.3: Glow of 2 levels, 8 steps, 64 channels, class-conditional base, Adamax 1e-3, batch 128",
    "diffusion": "torchcfm 1.0.7: its MNIST example, U-Net of 1.1 M parameters, Adam 1e-3, batch 128; midpoint rule",
    "columns": "zuko 1.6.0: autoregressive NSF of 8 transforms, 64-64-64 units, 8 bins, Adam 1e-3, batch 256",
}

PAGE = """# Beside the specialists

Written by `make benchmark` (`benchmarks/peers`). {machine}. {versions}.

Data: 10,000 images of handwritten digits (MNIST's test set), 9,000 to train on and 1,000 held out. The specialists
are pinned in `benchmarks/peers/requirements.txt` and run in an environment of their own:

{peers}

torchgan's networks and losses are its own; its trainer imports torchvision, which has no build for a CPU-only torch
here, so the loop around them is the plain one of its tutorials.

## Training speed, same architecture and batch

Examples per second of training. The first column is the specialist's networks and losses in its own loop; the others
are the same networks and losses in Fivefold's loop (averaged weights, finiteness checks and all), in float32 and with
bfloat16 autocast. Weights lie channels-last where there are no group norms, as those of our own image flows do. Of the
flow the last column is our own Glow of the same shape, because bfloat16 would break the peer's invertible layers; of
the flow of columns there is none.

{throughput}

## Best samples after the same time

Fréchet distance of 1,000 samples to the 1,000 held-out images in the features of a classifier that neither side has
seen; lower is better. On this scale 1,000 real training images have {floor:.2f} (the floor), scikit-learn's
Gaussian mixture per class on principal components {baseline:.2f}. Each side trains by its own recipe;
ours is `recipes/mnist-10k.yaml`.

{quality}
"""

COLUMNS = """Flows of columns: the same images as rows of their 16 leading principal components, 8,100 to train on, 900
to stop by, 1,000 held out, of which the table gives the negative log-density in nats a row; lower is better. Ours is
the flow of `recipes/mnist-10k-rows.yaml`, couplings between the columns' own scales.

| specialist | ours | seconds: specialist, ours | examples seen | parameters | runs |
| --- | --- | --- | --- | --- | --- |
{}
"""

DENSITY = """Of the flows also bits/dim of the held-out images: normflows' Glow {}, ours {}. Our recipe goes along
principal components, which gives samples early and a loose density; where the density is what counts, take `glow`."""


def page(results: list[Result], judge: Reference) -> str:
    """The page as Markdown."""
    reference = judge.facts["reference"]
    return PAGE.format(
        machine=machine(),
        versions=versions(),
        peers="\n".join(f"- {family}: {what}" for family, what in PEERS.items()),
        throughput=_throughput([r for r in results if r["measure"] == "throughput"]),
        quality=_quality([r for r in results if r["measure"] == "quality"]),
        floor=reference["floors"]["frechet"]["value"],
        baseline=reference["baseline"]["frechet"]["value"],
    )


def machine() -> str:
    """The processor and how many cores of it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"Machine: {names[0] if names else platform.processor()}, {os.cpu_count()} cores, no GPU"


def versions() -> str:
    """Of what both sides stand on."""
    text = Path(mnist.__file__).with_name("requirements.txt").read_text(encoding="utf-8")
    pinned = dict(line.split("==") for line in text.splitlines() if "==" in line)
    return f"Python {platform.python_version()}, torch {pinned['torch']}, scikit-learn {pinned['scikit-learn']}"


def spread(values: Iterable[float], digits: int = 0) -> str:
    """Median, and in brackets the smallest and the largest of repeated runs."""
    found = sorted(values)
    if not found:
        return "–"
    text = f"{median(found):,.{digits}f}"
    return text if len(found) == 1 else f"{text} ({found[0]:,.{digits}f} – {found[-1]:,.{digits}f})"


def terms(results: list[Result]) -> list[tuple[int, float, bool]]:
    """The budgets that were measured under: threads, seconds, whether of the processor."""
    return sorted({(r["threads"], r["seconds"], r["cpu"]) for r in results})


def _heading(threads: int, seconds: float, cpu: bool) -> str:
    time = f"{seconds:g} seconds" if seconds < 60 else f"{seconds / 60:g} minutes"
    kind = "processor time" if cpu else "wall-clock time"
    return f"{threads} thread{'s' * (threads > 1)}, {time} of {kind} a side; medians of the runs, and their range.\n"


def _of(results: list[Result], family: str, side: str, term: tuple[int, float, bool]) -> list[Result]:
    return [
        r
        for r in results
        if (r["family"], r["side"]) == (family, side) and (r["threads"], r["seconds"], r["cpu"]) == term
    ]


def _throughput(results: list[Result]) -> str:
    text = []
    for term in terms(results):
        rows = ["| family | specialist | ours, float32 | ours, bfloat16 | best of ours / specialist | runs |"]
        rows.append("| --- | --- | --- | --- | --- | --- |")
        for family in PEERS:
            rates = {side: [r["rate"] for r in _of(results, family, side, term)] for side in ("theirs", "fp32", "bf16")}
            if not rates["theirs"] or not rates["fp32"]:
                continue
            ratio = max(median(r) for side, r in rates.items() if side != "theirs" and r) / median(rates["theirs"])
            rows.append(f"| {family} | " + " | ".join(spread(v) for v in rates.values()))
            rows[-1] += f" | {ratio:.2f} | {len(rates['theirs'])} |"
        text += [_heading(*term), "\n".join(rows), ""]
    return "\n".join(text).rstrip() or "Not measured yet."


def _quality(results: list[Result]) -> str:
    text = []
    for term in terms(results):
        rows = ["| family | specialist | ours | seconds: specialist, ours | examples seen | parameters | runs |"]
        rows.append("| --- | --- | --- | --- | --- | --- | --- |")
        density = columns = ""
        for family in PEERS:
            theirs, ours = (_of(results, family, side, term) for side in ("theirs", "ours"))
            ours = [r for r in ours if r["recipe"] == ours[-1]["recipe"]]
            if not theirs or not ours:
                continue
            seen = ", ".join(f"{median(r['examples'] for r in side):,.0f}" for side in (theirs, ours))
            took = ", ".join(f"{median(r['spent'] for r in side):.0f}" for side in (theirs, ours))
            size = ", ".join(f"{side[0]['parameters'] / 1e6:.2f} M" for side in (theirs, ours))
            judged = "nats" if family == "columns" else "frechet"
            marks = " | ".join(spread((r[judged] for r in side), 2) for side in (theirs, ours))
            if family == "columns":
                columns = COLUMNS.format(f"| {marks} | {took} | {seen} | {size} | {len(ours)} |")
                continue
            rows.append(f"| {family} | {marks} | {took} | {seen} | {size} | {len(ours)} |")
            if "bits_per_dim" in theirs[0]:
                bits = [spread((r["bits_per_dim"] for r in side), 2) for side in (theirs, ours)]
                density = DENSITY.format(*bits)
        text += [_heading(*term), "\n".join(rows), "", density, "", columns]
    return "\n".join(text).rstrip() or "Not measured yet."
