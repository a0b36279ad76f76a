"""What must not matter does not: the same bits whatever the process is called with and wherever it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = {
    "one": {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C", "umask": "077"},
    "an other — place": {"PYTHONHASHSEED": "4711", "TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "umask": "002"},
}
"""Name of the folder, environment variables, and the umask."""


def test_hash_seed_time_zone_locale_umask_and_place_change_no_bit(tmp_path: Path) -> None:
    """Card, prepared data file by file, a trained model and its draws, from processes that have nothing in common."""
    running = []
    for name, environment in PLACES.items():
        folder = tmp_path / name
        folder.mkdir()
        kept = {key: value for key, value in os.environ.items() if key not in ("LANG", "LC_ALL", "TZ")}
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/support/same_bits.py"), environment["umask"]],
            cwd=folder,
            env={**kept, **environment, "PYTHONPATH": str(ROOT), "HOME": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
    told = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    one, other = (lines.splitlines() for lines, _ in told)
    assert len(one) > 8
    assert one == other
