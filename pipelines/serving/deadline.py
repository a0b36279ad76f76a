"""When work on a request ends before it is done: its time is over, or whoever asked is gone."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

_end: ContextVar[float] = ContextVar("end", default=float("inf"))
_gone: ContextVar[threading.Event | None] = ContextVar("gone", default=None)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give the work of a block so many seconds; `check` ends it."""
    token = _end.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _end.reset(token)


def check() -> None:
    """To be called between the parts of a work.

    Raises:
        TimeoutError: If its time is over, or whoever asked is gone.
    """
    gone = _gone.get()
    if gone is not None and gone.is_set():
        raise TimeoutError("whoever asked is gone.")
    if time.monotonic() > _end.get():
        raise TimeoutError("the answer takes longer than one call may (FIVEFOLD_MAX_SECONDS). Ask for less at a time.")


async def answered(handle: Callable[[Any], Awaitable[Any]], request: Any, most_bytes: int) -> Any:
    """Handle a request of MLflow's server: read no more than is taken, and stop when the caller has left.

    Arguments:
        handle: MLflow's own handler; it does the work in a thread that knows of the request by a context variable.
        request: Starlette's.
        most_bytes: Of its body.
    Raises:
        ValueError: If the body is larger.
    """
    from starlette.requests import ClientDisconnect
    from starlette.responses import Response

    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > most_bytes:
                raise ValueError(
                    f"the request has more bytes than are taken: at most {most_bytes} are taken "
                    "(FIVEFOLD_MAX_REQUEST_BYTES). Send the rows in parts."
                )
            parts.append(part)
    except ClientDisconnect:
        return Response(status_code=499)  # nobody reads it
    request._body = b"".join(parts)  # what `request.body()` returns, read only once
    gone = threading.Event()
    _gone.set(gone)

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watching = asyncio.ensure_future(watch())
    try:
        return await handle(request)
    finally:
        watching.cancel()
        gone.set()  # the server has given up, perhaps: its thread ends at the next look
