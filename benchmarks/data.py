"""How fast and how flat the data layer is: ratios measured in one run, printed as a table.

    python benchmarks/data.py throughput path/to/cifar10-jpg.tar.gz
    python benchmarks/data.py memory [--rows 2000000] [--images 200000]
    python benchmarks/data.py beyond [--megabytes 800]

`throughput` compares `prepare` with a single-process Pillow loop over the same archive, and batches of
the prepared data with a DataLoader of 2 workers over the unpacked image folder and with slicing a
tensor. `memory` compares the peak memory of `prepare` on generated data with that on a tenth of it
(the largest sum of resident memory over the process and its workers, sampled, less pages of shared
files). `beyond` prepares and trains on data ten times larger than the memory that the process is
allowed to take (RLIMIT_DATA). Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def row(name: str, value: str, wanted: str = "") -> None:
    """Print one line of the table."""
    print(f"| {name:58} | {value:>26} | {wanted:10} |", flush=True)


def timed(function: Callable[[], object]) -> float:
    """Seconds a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def computing(function: Callable[[], object]) -> float:
    """Seconds of processor time that a call takes, here and in processes it starts and awaits."""

    def spent() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    start = spent()
    function()
    return spent() - start


def run_stage(code: str, *arguments: str) -> float:
    """Seconds a fresh process takes for some code, imports included."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}", *arguments]
    return timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


PREPARE = (
    "from pathlib import Path\nfrom pipelines.stages.prepare import prepare\n"
    "prepare(sys.argv[2], root=Path(sys.argv[1]))"
)
ADD = """
from pathlib import Path
from pipelines.cli.data import add
add(sys.argv[3], sys.argv[2], root=Path(sys.argv[1]))
"""


def pillow_loop(archive: Path) -> int:
    """Decode every image of a tar archive, one after the other."""
    from PIL import Image

    count = 0
    with tarfile.open(archive) as opened:
        for member in opened:
            if member.isfile():
                stream = io.BytesIO(opened.extractfile(member).read())
                np.asarray(Image.open(stream).convert("RGB"))
                count += 1
    return count


class ImageFolder:
    """What people write for a DataLoader: one file per item."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        import torch
        from PIL import Image

        pixels = np.array(Image.open(self.files[index]).convert("RGB"))
        return torch.from_numpy(pixels), hash(self.files[index].parent.name) % 10


def throughput(archive: Path, steps: int) -> None:
    """Print the ratios of speed."""
    import torch
    from torch.utils.data import DataLoader

    from data.batches import Batches
    from data.dataset import Dataset

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        run_stage(ADD, str(root), "bench", str(archive.resolve()))
        seconds: dict[str, float] = {}
        spent = {
            "loop": computing(lambda: seconds.update(loop=timed(lambda: pillow_loop(archive)))),
            "stage": computing(lambda: seconds.update(stage=run_stage(PREPARE, str(root), "bench"))),
        }
        loop, stage = seconds["loop"], seconds["stage"]
        row("Pillow loop over the archive, one process", f"{loop:.1f} s, computing {spent['loop']:.1f} s")
        row("prepare, whole process", f"{stage:.1f} s, computing {spent['stage']:.1f} s")
        row("  against the loop", f"{loop / stage:.2f}×", "≥ 1.6×")
        split = Dataset.open(root / "data/prepared/bench").split("train")
        unpacked = root / "unpacked"
        with tarfile.open(archive) as opened:
            opened.extractall(unpacked, filter="data")
        loader = DataLoader(
            ImageFolder(sorted(unpacked.rglob("*.jpg"))), 256, shuffle=True, num_workers=2, drop_last=True
        )
        loaded = loader_rate(loader, min(steps, 100))
        rates = {memory: batch_rate(Batches(split, 256, memory=memory), steps) for memory in ("device", "mapped")}
        sliced = slicing_rate(split.all().x, steps)
        row("DataLoader, 2 workers, image folder", f"{loaded:,.0f} images/s")
        row("slicing a tensor by a shuffled index, uint8 → float", f"{sliced:,.0f} images/s")
        for memory, rate in rates.items():
            row(f"batches, {memory}, uint8 → float", f"{rate:,.0f} images/s")
            row("  against the DataLoader", f"{rate / loaded:.1f}×", "≥ 5×")
            row("  against slicing", f"{rate / sliced:.2f}×", "≥ 0.7×" if memory == "device" else "")
        row("torch threads", str(torch.get_num_threads()))


def loader_rate(loader, steps: int) -> float:
    """Images per second of a DataLoader, its start left out."""
    batches = iter(loader)
    next(batches)[0].float()
    start = time.perf_counter()
    for _ in range(steps):
        next(batches)[0].float()
    return steps * 256 / (time.perf_counter() - start)


def batch_rate(batches, steps: int) -> float:
    """Images per second of `Batches`."""
    batches.get(0).x.float()
    start = time.perf_counter()
    for step in range(1, steps + 1):
        batches.get(step).x.float()
    return steps * 256 / (time.perf_counter() - start)


def slicing_rate(x, steps: int) -> float:
    """Images per second of slicing a tensor in memory in a random order."""
    import torch

    order = torch.randperm(len(x))
    start = time.perf_counter()
    for step in range(steps):
        at = step * 256 % (len(x) - 256)
        x[order[at : at + 256]].float()
    return steps * 256 / (time.perf_counter() - start)


def table(path: Path, rows: int) -> None:
    """Write a CSV file of mixed columns."""
    random = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("a,b,c,d,e,f,g,label\n")
        for start in range(0, rows, 50_000):
            n = min(50_000, rows - start)
            numbers = random.normal(size=(n, 5))
            whole, kind, label = random.integers(0, 1000, n), random.integers(0, 20, n), random.integers(0, 3, n)
            for i in range(n):
                cells = ",".join(f"{v:.6f}" for v in numbers[i])
                file.write(f"{cells},{whole[i]},kind{kind[i]},{label[i]}\n")


def pictures(path: Path, count: int) -> None:
    """Write a tar archive of small PNG images in ten classes."""
    from PIL import Image

    random = np.random.default_rng(0)
    with tarfile.open(path, "w") as archive:
        for i in range(count):
            stream = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (16, 16)).astype(np.uint8)).save(stream, "PNG", compress_level=1)
            info = tarfile.TarInfo(f"set/{i % 10}/{i}.png")
            info.size = stream.tell()
            stream.seek(0)
            archive.addfile(info, stream)


def peak_memory(root: Path, name: str) -> tuple[float, float]:
    """Seconds and the largest resident memory in MB of `prepare` and its workers."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{PREPARE}"
    process = subprocess.Popen([sys.executable, "-c", code, str(root), name])
    start, peak = time.perf_counter(), 0.0
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        for member in [watched, *_children(watched)]:
            try:
                found = member.memory_info()
                total += found.rss - found.shared
            except psutil.Error:
                continue
        peak = max(peak, total / 1e6)
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"prepare of {name} failed")
    return time.perf_counter() - start, peak


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def memory(rows: int, images: int) -> None:
    """Print the ratios of peak memory."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for kind, count, suffix, write in (("rows", rows, "csv", table), ("images", images, "tar", pictures)):
            peaks = []
            for n in (count // 10, count):
                source = root / f"{kind}-{n}.{suffix}"
                name = f"{kind}-{n}"
                write(source, n)
                run_stage(ADD, str(root), name, str(source))
                seconds, peak = peak_memory(root, name)
                peaks.append(peak)
                row(f"prepare of {n:,} {kind}", f"{peak:.0f} MB, {seconds:.1f} s")
                source.unlink()
            row("  ratio of peaks", f"{peaks[1] / peaks[0]:.2f}×", "≤ 1.2×")


def beyond(megabytes: int) -> None:
    """Prepare and train on images ten times larger than memory."""
    count = 10 * megabytes * 1_000_000 // 1024
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        random = np.random.default_rng(0)
        images = np.lib.format.open_memmap(root / "x.npy", "w+", np.uint8, (count, 32, 32))
        for start in range(0, count, 1 << 16):
            part = images[start : start + (1 << 16)]
            part[:] = random.integers(0, 256, part.shape, np.uint8)
        images.flush()
        del images, part
        run_stage(ADD, str(root), "big", str(root / "x.npy"))
        for verb in ("prepare", "train"):
            command = [sys.executable, __file__, "capped", verb, str(root), str(megabytes)]
            print(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout, end="", flush=True)


def capped(verb: str, root: Path, megabytes: int) -> None:
    """Do one thing with so much memory and no more."""
    resource.setrlimit(resource.RLIMIT_DATA, (megabytes * 1_000_000, megabytes * 1_000_000))
    done = capped_prepare(root) if verb == "prepare" else capped_training(root)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = psutil.Process().memory_info()
    row(f"{done}, at most {megabytes} MB", f"{(taken.rss - taken.shared) / 1e6:.0f} MB taken")
    row("  with mapped pages of the shards", f"{peak / 1e3:.0f} MB at the peak")


def capped_prepare(root: Path) -> str:
    """Prepare the data."""
    from pipelines.stages.prepare import prepare

    seconds = timed(lambda: prepare("big", root=root))
    (root / "x.npy").unlink()
    size = sum(path.stat().st_size for path in (root / "data/prepared/big").iterdir())
    return f"prepare of {size / 1e6:,.0f} MB in {seconds:.0f} s"


def capped_training(root: Path) -> str:
    """Go once through all data, then train a small autoencoder on it."""
    import torch

    from data.dataset import Dataset
    from models import build
    from pipelines.training import loop
    from pipelines.training.config import TrainingConfig
    from pipelines.training.worker import TrainingData

    torch.set_num_threads(1)
    dataset = Dataset.open(root / "data/prepared/big")
    settings = TrainingConfig(total_examples=64 * 200, batch_size=64)
    data = TrainingData(dataset, settings, 0, "cpu")
    if data.batches.resident:
        raise SystemExit("the data was taken into memory")
    steps = len(data.split) // 64
    seconds = timed(lambda: sum(int(data.batch(step, 0, 1).x.sum()) for step in range(steps)))
    spec = {"family": "autoencoder", "config": {"width": 8}, "domain": dataset.domain, "classes": 0}
    loop.train(build(spec), data, settings, seed=0, report=lambda _: None)
    return f"an epoch of {steps * 64:,} images in {seconds:.0f} s, and training"


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    speed = verbs.add_parser("throughput")
    speed.add_argument("archive", type=Path)
    speed.add_argument("--steps", type=int, default=2000)
    flat = verbs.add_parser("memory")
    flat.add_argument("--rows", type=int, default=2_000_000)
    flat.add_argument("--images", type=int, default=200_000)
    large = verbs.add_parser("beyond")
    large.add_argument("--megabytes", type=int, default=800, help="memory allowed; the data is ten times as large")
    one = verbs.add_parser("capped", help="used by `beyond`")
    one.add_argument("what", choices=("prepare", "train"))
    one.add_argument("root", type=Path)
    one.add_argument("megabytes", type=int)
    chosen = parser.parse_args()
    if chosen.verb == "throughput":
        throughput(chosen.archive, chosen.steps)
    elif chosen.verb == "beyond":
        beyond(chosen.megabytes)
    elif chosen.verb == "capped":
        capped(chosen.what, chosen.root, chosen.megabytes)
    else:
        memory(chosen.rows, chosen.images)


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
