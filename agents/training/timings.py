"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agents.training.files import Row


class Timings:
    """Seconds since the start, and those of each part of an iteration.

    Args:
        clock: seconds from a fixed point; ``time.process_time`` counts the processor's instead, so
            that a run which shares its core with another program is given as much work.
        before: seconds that the run had taken when it was cut.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter, before: float = 0.0):
        self.clock = clock
        self.start = clock() - before
        self.parts: dict[str, float] = defaultdict(float)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, those before it was cut included."""
        return self.clock() - self.start

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count what is done within as this part of the iteration."""
        start = self.clock()
        yield
        self.parts[f"seconds_{part}"] += self.clock() - start

    def take(self) -> Row:
        """Seconds of each part since the last call, and begin anew."""
        row = dict(self.parts)
        self.parts.clear()
        return row
