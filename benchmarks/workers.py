"""Trainings that run side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any


@contextmanager
def workers(jobs: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """``map``, whose calls run in ``jobs`` new processes; with one job, in this process.

    Results come in the order of the arguments, as soon as they are there.
    """
    if jobs < 1:
        raise ValueError(f"jobs={jobs}, expected 1 or more")
    if jobs == 1:
        yield map
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield pool.map
