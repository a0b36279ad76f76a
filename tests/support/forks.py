"""Processes forked off one that has everything imported and nothing done: starting many is quick."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any

import pytest
from torch.multiprocessing import start_processes


def forks(*modules: str) -> multiprocessing.context.ForkServerContext:
    """A context whose processes have imported these modules already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where the server looks for what it imports
        context = multiprocessing.get_context("forkserver")
        forkserver._forkserver._stop()  # another module's, if any, which has imported other things
        context.set_forkserver_preload(list(modules))
        forkserver.ensure_running()
    return context


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs a function of this module in two processes, given rank and arguments; returns at once if `join` is false."""
    forks(request.module.__name__, "torch._dynamo")  # which optimizers import when they are made

    def run(function: Callable[..., None], *arguments: Any, join: bool = True) -> Any:
        return start_processes(function, arguments, nprocs=2, join=join, start_method="forkserver")

    return run
