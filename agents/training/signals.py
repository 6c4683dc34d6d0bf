"""Signals that ask a run to stop: Ctrl-C, and what a batch system or a closing terminal sends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from agents.training.processes import Processes

# Windows knows no SIGHUP.
ASKING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in dir(signal)]


class StopSignals:
    """Lets SIGINT (Ctrl-C), SIGTERM and SIGHUP stop what is done within at a good moment.

    The first one is noted, for the loop within to come to an end; a second one acts as it would
    have without this: it stops at once. A signal that was ignored when this began (``nohup``) stays
    ignored. Outside the main thread, where Python delivers no signals, this does nothing.

    Args:
        at_once: whether the first one, too, stops at once, by :meth:`leave`.

    Attributes:
        received: the signal that came, or None.
    """

    def __init__(self, at_once: bool = False):
        self.at_once = at_once
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in ASKING:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()
        if self.at_once:
            self.leave()

    def came(self, processes: Processes) -> bool:
        """Whether a signal came, to any of the processes that train together: all must ask."""
        if processes.count > 1:
            number = processes.mean({"signal": float(self.received or 0)})["signal"]
            if number and self.received is None:
                self.received = signal.SIGTERM  # as torchrun would send it to this one, too
        return self.received is not None

    def leave(self) -> None:
        """End the program as the signal that came is expected to.

        Raises:
            KeyboardInterrupt: after SIGINT.
            SystemExit: after another one, with 128 and the signal's number for a status.
        """
        assert self.received is not None
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.received)


@contextmanager
def telling_of_stops(words: str) -> Iterator[None]:
    """For a command: what is done within may be stopped at once, and one line says so.

    Args:
        words: what is kept, and how to go on.

    Raises:
        SystemExit: with 128 and the signal's number for a status.
    """
    try:
        with StopSignals(at_once=True):
            yield
    except (KeyboardInterrupt, SystemExit) as end:
        status = 128 + signal.SIGINT if isinstance(end, KeyboardInterrupt) else end.code
        if isinstance(status, int) and status > 128 and os.environ.get("RANK", "0") == "0":
            print(f"stopped by {signal.Signals(status - 128).name}: {words}", flush=True)
        raise SystemExit(status) from None
