"""The life of a run in rounds: what it logs and shows, and how it is stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from agents.evaluation.evaluator import results
from agents.rounds.state import TrainState
from agents.training.files import Row
from agents.training.policy_run import PolicyRun
from agents.training.progress import progress_bar
from agents.training.signals import StopSignals
from ral_env.picture import contact_sheet, to_bytes


class Run(PolicyRun[TrainState]):
    """Everything about a run that is not the algorithm, see :class:`PolicyRun`.

    Attributes:
        history: the rows so far; the first is of the prior as it came.
        drawn: the canvases that the policy was last measured on.
        last_figures: those of the discriminator against the policy that is returned.
    """

    algo = "rounds"
    free = ("device", "rounds", "seconds")

    def __init__(
        self, state: TrainState, out: Path | str | None, resume: bool, clock: Callable[[], float]
    ):
        super().__init__(state, out, resume, clock)
        self.drawn: Sequence[Tensor] = ()
        self.last_figures = Row()
        self._signal: signal.Signals | None = None

    @property
    def policies(self) -> Sequence[Any]:
        """The policies, which are averages at the end of a round."""
        return self.state.policies.cpu()

    @property
    def learnt(self) -> Sequence[Any]:
        """The policies."""
        return [self.state.policies]

    @property
    def interrupted(self) -> signal.Signals | None:
        """The signal that stopped it, or None."""
        return self._signal

    def measure(self, policies: Sequence[Any]) -> dict[str, Any]:
        """Those that every algorithm has, and what the discriminator says of these policies."""
        own = {name: self.last_figures[name] for name in ("auc", "ess")}
        return own | results(self.state.bundle, policies, seed=self.config.seed)

    @contextmanager
    def until_stopped(self) -> Iterator[None]:
        """Ctrl-C, SIGTERM and SIGHUP end at once what is done within."""
        signals = StopSignals(at_once=True)
        try:
            with signals:
                yield
        except KeyboardInterrupt:
            self._signal = signals.received or signal.SIGINT
        except SystemExit:
            if signals.received is None:
                raise
            self._signal = signals.received

    def is_out_of_time(self) -> bool:
        """Whether the seconds that the run was given are over."""
        return self.config.seconds is not None and self.elapsed() >= self.config.seconds

    def log(self, row: Row) -> None:
        """Keep a round's row, a picture of its canvases and the policies; write a checkpoint."""
        row = row | {"seconds": self.elapsed()} | self.timings.take()
        self.history.append(row)
        self._bar.update(self.state.iteration - self._bar.n)
        if not self.folder.writes:
            return
        figures, number = self.folder.figures(), self.state.iteration
        figures.add(row)
        sheet = contact_sheet(to_bytes(self.state.decode([grid[:16] for grid in self.drawn])))
        self.folder.picture(f"samples-{number:05d}.png", "samples", sheet, figures, number)
        self.folder.keep_policies(self.state.policies, number)
        self.save()

    @contextmanager
    def bar(self, shown: bool) -> Iterator[None]:
        """A progress bar of rounds."""
        label = "ral" if shown else ""
        self._bar = progress_bar(self.config.rounds, label, "round", done=self.state.iteration)
        with self._bar:
            yield

    def show(self, doing: str) -> None:
        """Say beside the bar what is being done, and how the last round ended."""
        row = self.history[-1] if self.history else {}
        told = [f"{name} {row[name]:.3g}" for name in ("auc", "ess", "forward_nll") if name in row]
        self._bar.tell(", ".join([doing, *told]))
