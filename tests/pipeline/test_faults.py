"""The table of faults is whole, and those that have no better place."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.execution.search import TrialLog
from pipelines.training import worker
from pipelines.training.context import WorkerContext
from pipelines.training.job import FAILURE, failure, locked, record_failure

ROOT = Path(__file__).parents[2]


def test_every_fault_has_a_row_and_every_test_it_names_exists():
    rows = re.findall(r"^\| (\d+) [^|]+\| [^|]+\| ([^|]+) \|$", (ROOT / "docs/faults.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 39))
    files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for number, evidence in rows:
        named = re.findall(r"`(\w+\.py)::(\w+)`", evidence)
        assert named or evidence.startswith("no test: "), f"fault {number} has neither a test nor a reason"
        for file, test in named:
            assert f"def {test}(" in files[file], f"fault {number} names {file}::{test}"


def job(state: Path, **training: object) -> dict:
    """A training whose settings are good or not, on data that is not there."""
    return {
        "spec": {"family": "vae"},
        "training": training,
        "seed": 0,
        "prepared": str(state / "absent"),
        "yardstick": "",
        "state": str(state),
        "checkpoints": str(state / "checkpoints"),
    }


def test_14_a_bug_is_told_with_its_first_traceback_and_not_tried_again(tmp_path):
    worker.run_worker(job(tmp_path, nonsense=1), WorkerContext())  # a TypeError, as only a bug of ours could cause
    told = failure(tmp_path)
    assert "a bug stopped the training, first on rank 0" in str(told)
    assert "Traceback" in str(told)
    assert "unexpected keyword argument 'nonsense'" in str(told)
    first = (tmp_path / FAILURE).read_text()
    worker.run_worker(job(tmp_path), WorkerContext())  # a restart of all workers: nothing is tried
    record_failure(tmp_path, ValueError("what followed from it"), 1)
    assert (tmp_path / FAILURE).read_text() == first


def test_14_an_error_that_one_can_mend_is_told_without_a_traceback(tmp_path):
    worker.run_worker(job(tmp_path), WorkerContext())
    told = failure(tmp_path)
    assert "Traceback" not in str(told)
    assert "absent" in str(told)


HOLDER = (
    "import sys\nfrom pathlib import Path\nfrom pipelines.training.job import locked\n"
    "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
)


def test_17_18_a_lock_names_its_holder_and_dies_with_it(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        told = f"in use by process {holder.pid} on .*wait for it or end it"
        with pytest.raises(RuntimeError, match=told), locked(tmp_path):
            pass
        os.kill(holder.pid, signal.SIGKILL)
    assert f"process {holder.pid}" in (tmp_path / "lock").read_text()  # it is still there, and holds nothing
    with locked(tmp_path):
        assert f"process {os.getpid()}" in (tmp_path / "lock").read_text()


class Told:
    """Whom the ledger passes on to: nobody here."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def trial_started(self, *_: object) -> None: ...
    def trial_result(self, *_: object) -> None: ...
    def show(self, *_: object) -> None: ...
    def trial_finished(self, trial: str, status: str) -> None:
        self.ended.append(status)


SWEEP = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_faults import Told
from pipelines import cluster
from pipelines.config import Range
from pipelines.execution.search import TrialLog

folder, log = Path(sys.argv[1]), Path(sys.argv[1], "tried")

def trial(settings, report):
    number = len(log.read_text().split()) if log.exists() else 0
    with log.open("a") as file:
        file.write(f"{settings['x']}\\n")
    if number == 1:
        raise ArithmeticError("this trial fails")
    if number == 2 and not (folder / "again").exists():
        (folder / "again").touch()
        (folder / "now").touch()
        import time
        time.sleep(60)
    report(10, settings["x"])

ledger = TrialLog(folder, Told(), Told(), 10)
before = ledger.finished()
with cluster.connected():
    cluster.run_trials(
        trial, {"x": Range(low=0.0, high=1.0)}, initial=[] if before else [{"x": 0.5}],
        completed=[(t["settings"], t["score"]) for t in before if t["score"] is not None], trials=4 - len(before),
        concurrent=1, threads=1, examples=10, seed=0, storage=folder / "ray", recorder=ledger,
    )
"""


@pytest.mark.slow
def test_21_22_a_failed_trial_is_told_and_finished_ones_are_not_repeated(tmp_path):
    """The second of four trials fails; everything is killed during the third; started again, two are run."""
    import time

    from test_pipeline import kill_everything

    command = [sys.executable, "-W", "ignore", "-c", SWEEP, str(tmp_path), str(Path(__file__).parent)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end = time.monotonic() + 240
    while not (tmp_path / "now").exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.1)
    kill_everything(process)
    subprocess.run(command, env=environment, check=True, timeout=300, capture_output=True)
    trials = TrialLog(tmp_path, Told(), Told(), 10).finished()
    assert [trial["error"] is None for trial in trials] == [True, False, True, True]
    assert "this trial fails" in trials[1]["error"]
    assert trials[0]["settings"] == {"x": 0.5}
    assert len((tmp_path / "tried").read_text().split()) == 5  # four, and the one that was killed
    assert json.dumps(trials).count("0.5}") == 1
