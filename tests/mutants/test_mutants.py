"""`make mutants` on a small project whose one weak test is known."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "pyproject.toml": """
        [tool.mutants]
        paths = ["toy"]
        groups = ["toy"]
        equivalents = "equivalent.yaml"
    """,
    "toy/__init__.py": "",
    "toy/plane.py": '''
        """Prose that is not changed."""

        def area(width: int, height: int) -> int:
            if width < 0:
                raise ValueError("width: expected at least 0" + "!")
            return width * height

        def border(width, height):
            return width + height

        def same(x):
            return x * 1

        def doubled(x):
            return x + x

        def never_run(x):
            return -x
    ''',
    "toy/__main__.py": """
        import sys

        def main():
            sys.exit(7 - 2)

        if __name__ == "__main__":
            main()
    """,
    "toy/pause.py": """
        def pause(event):
            return event.wait(0)
    """,
    "tests/test_strong.py": """
        import threading

        import pytest
        from toy import pause, plane

        def test_area():
            assert plane.area(3, 4) == 12
            assert plane.area(0, 4) == 0
            with pytest.raises(ValueError):
                plane.area(-1, 4)

        def test_the_rest():
            assert plane.same(2) == 2
            assert not pause.pause(threading.Event())
    """,
    "tests/test_shared.py": """
        import functools
        import subprocess
        import sys

        import pytest
        from toy import plane

        @functools.cache
        def eight():
            return plane.doubled(4)

        @pytest.fixture(scope="module")
        def height():
            return plane.area(2, eight())

        def test_that_runs_the_shared_code_first_and_sees_nothing(height):
            assert height is not None

        def test_that_sees_what_was_computed_before(height):
            assert height == 16

        def test_a_process():
            assert subprocess.run([sys.executable, "-m", "toy"]).returncode == 5
    """,
    "tests/test_weak.py": """
        from toy import plane

        def test_border():
            assert plane.border(3, 4) > 0
    """,
    "equivalent.yaml": """
        - {path: toy/plane.py, line: return x * 1, mutated: return x / 1, reason: x is a number}
        - {path: toy/plane.py, line: return x * 1, mutated: return x, reason: one is the unit}
        - {path: toy/pause.py, line: return event.wait(0), mutated: return event.wait(1), reason: only slower}
        - {path: toy/plane.py, line: return x * 9, mutated: return x, reason: no longer there}
    """,
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        write(tmp_path / name, text)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    lines = text.split("\n")
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    path.write_text("\n".join(line[indent:] for line in lines).lstrip("\n"))


def mutants(project: Path, *more: str) -> str:
    command = [sys.executable, "-m", "benchmarks.mutants", "--root", str(project), "--grace", "4", *more]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_weak_test_s_survivor_is_named_and_once_mended_newly_caught(project):
    said = mutants(project)
    assert re.findall(r"^  [-+] .*", said, re.MULTILINE) == [
        "  -     return width + height",
        "  +     return width",
        "  -     return -x",
        "  +     return +x",
    ]
    assert re.search(r"plane.py:\d+  uncovered, 0 of 0 tests\n  -     return -x", said)
    assert "stale entry among the equivalent mutants: toy/plane.py: return x * 9" in said
    assert "raise" not in said
    counts = re.search(r"^toy +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)", said, re.MULTILINE)
    total, caught, timeouts, survived, uncovered = map(int, counts.groups())
    assert (timeouts, survived, uncovered) == (1, 1, 1)  # wait(None) never ends
    assert caught == total - 3
    assert (project / "toy/plane.py").read_text().count("width * height") == 1

    write(project / "tests/test_weak.py", FILES["tests/test_weak.py"].replace("> 0", "== 7"))
    said = mutants(project, "--paths", "toy/plane.py")
    assert "newly caught: toy/plane.py:9" in said
    assert "newly surviving" not in said
    assert "test_area" not in said  # what caught a change before has not changed: not run again
