"""Requests that ask for more than one caller may have: refused before the work, or ended between its parts."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import numpy as np
import pytest
from test_downstream import check_refused, post
from test_served import PAIRS, examples, loaded, over_http, pytestmark
from test_tracking import free_port, migrated, store

__all__ = ["free_port", "loaded", "migrated", "pytestmark", "store"]
PART = 0.05


@pytest.fixture
def slow(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model that takes its time for every part of a work, and counts the parts."""
    model = loaded("table")
    inner = model.unwrap_python_model().model
    sample = inner.sample
    model.parts = []

    def slowly(*given: Any, **more: Any) -> Any:
        model.parts.append(threading.get_ident())
        time.sleep(PART)
        return sample(*given, **more)

    monkeypatch.setattr(inner, "sample", slowly)
    return model


def asking(port: int, body: bytes) -> socket.socket:
    """A caller that has asked and waits."""
    caller = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    caller.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return caller


def test_a_small_request_does_not_wait_for_those_who_left(slow: Any, free_port: int) -> None:
    """45 callers ask for ten seconds of work each and leave; the next is answered when the parts at work are done."""
    large = json.dumps({"params": {"n": 200 * 256}}).encode()
    with over_http(slow, "table", free_port):
        assert post(free_port, {"params": {"n": 1}}, "application/json")[0] == 200
        callers = [asking(free_port, large) for _ in range(45)]
        time.sleep(20 * PART)
        for caller in callers:
            caller.close()
        start = time.monotonic()
        assert post(free_port, {"params": {"n": 2}}, "application/json")[0] == 200
        waited = time.monotonic() - start
    assert 8 < len(slow.parts) < 45 * 200 / 10  # work had begun
    assert waited < 3  # a second, on a machine that is busy


def test_a_work_ends_when_its_time_is_over(slow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIVEFOLD_MAX_SECONDS", "1")
    with pytest.raises(ValueError, match=r"longer than one call may \(FIVEFOLD_MAX_SECONDS\)"):
        slow.predict(None, params={"n": 100 * 256})
    assert 1 <= len(slow.parts) < 1 / PART + 2


def test_the_models_own_steps_count_as_work(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("table")
    monkeypatch.setitem(model.unwrap_python_model().facts, "config", {"steps": 10})
    monkeypatch.setenv("FIVEFOLD_MAX_WORK", str(10 * 12 * 5))
    assert len(model.predict(None, params={"n": 5})) == 5
    with pytest.raises(ValueError, match="6 examples x 1 draws x 10 steps x 12 values"):
        model.predict(None, params={"n": 6})
    monkeypatch.setitem(model.unwrap_python_model().facts, "config", {"steps": 1, "density_steps": 16})
    with pytest.raises(ValueError, match="4 examples x 1 draws x 16 steps x 12 values"):
        model.predict(examples("table", PAIRS), params={"task": "log_prob"})


def test_many_draws_are_made_a_few_at_a_time(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are asked for, the model is given no more than 256 rows times draws at once."""
    model = loaded("table")
    inner, seen = model.unwrap_python_model().model, []
    impute = inner.impute

    def counted(x: Any, observed: Any, generator: Any, *, draws: int) -> Any:
        seen.append(len(x) * draws)
        return impute(x, observed, generator, draws=draws)

    monkeypatch.setattr(inner, "impute", counted)
    rows = examples("table", np.repeat(PAIRS, 75, axis=0))
    assert len(model.predict(rows, params={"task": "impute", "draws": 300})) == 300 * len(rows)
    assert (max(seen), sum(seen)) == (256, 300 * len(rows))


def nested(depth: int) -> bytes:
    return b'{"inputs": ' + b"[" * depth + b"]" * depth + b"}"


def test_bodies_are_bounded_in_size_and_depth(loaded: Any, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with over_http(loaded("table"), "table", free_port):
        for depth in (20, 500, 900, 990, 5_000, 200_000):
            check_refused(free_port, nested(depth), "application/json", "the request is n")
        check_refused(
            free_port, b'{"params": {"given": ' + b'{"a":' * 50 + b"1" + b"}" * 52, "application/json", "nested"
        )
        monkeypatch.setenv("FIVEFOLD_MAX_REQUEST_BYTES", "100000")
        with socket.create_connection(("127.0.0.1", free_port), timeout=20) as caller:
            head = "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            caller.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            sent = 0
            try:
                while sent < 500 and not _answered(caller):  # endless, and of no stated length
                    caller.sendall(b"1000\r\n" + b"[" * 4096 + b"\r\n")
                    sent += 1
                    time.sleep(0.001)
            except OSError:
                pass
            answer = caller.recv(4096)
        assert b"400" in answer.split(b"\r\n")[0]
        assert sent < 400


def _answered(caller: socket.socket) -> bool:
    caller.setblocking(False)
    try:
        return bool(caller.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        caller.setblocking(True)
        caller.settimeout(20)
