"""The life of a run of REINFORCE: what it logs and shows, and when it is over."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents.evaluation.evaluator import results
from agents.reinforce.state import Rollout, TrainState
from agents.training.files import Row
from agents.training.policy_run import PolicyRun
from agents.training.progress import ProgressBar, progress_bar
from agents.training.signals import StopSignals
from ral_env.picture import contact_sheet

PICTURES_EVERY = 50  # iterations


class Run(PolicyRun[TrainState]):
    """Everything about a run that is not the algorithm, see :class:`PolicyRun`.

    Attributes:
        signals: what may stop it.
        seconds: when the present iteration began, since the run did.
    """

    algo = "reinforce"
    free = ("device", "checkpoint_every")

    def __init__(
        self, state: TrainState, out: Path | str | None, resume: bool, clock: Callable[[], float]
    ):
        self.signals = StopSignals()
        super().__init__(state, out, resume, clock)
        self.seconds = self.before

    def close(self) -> None:
        """Close the environments, and let another process have the folder."""
        self.state.envs.close()
        super().close()

    @property
    def policies(self) -> Sequence[Any]:
        """The running averages; of a run with a guard, the best that it has seen."""
        guard = self.state.guard
        return guard.best if guard else self.state.averages.cpu()

    @property
    def learnt(self) -> Sequence[Any]:
        """The policies and their averages."""
        return [self.state.policies, self.state.averages]

    @property
    def interrupted(self) -> signal.Signals | None:
        """The signal that stopped it, or None."""
        return self.signals.received

    def measure(self, policies: Sequence[Any]) -> dict[str, Any]:
        """Those that every algorithm has."""
        config = self.config
        return results(self.state.bundle, policies, seed=config.seed, reward_fn=config.reward_fn)

    def is_asked_to_stop(self) -> bool:
        """Whether a signal came, to any of the processes."""
        return self.signals.came(self.state.processes)

    def is_over(self) -> bool:
        """Whether the iterations are done, the seconds over, or a signal came. Begins an iteration
        if not."""
        if self.state.iteration >= self.config.iterations or self.is_asked_to_stop():
            return True
        if self.state.guard and self.state.guard.is_over:
            return True
        self.seconds = self.elapsed()
        self.timings.take()
        return self.config.seconds is not None and self.seconds >= self.config.seconds

    def rate(self) -> float:
        """The share of the learning rate that this iteration has."""
        done = (self.state.iteration + 1) / self.config.iterations
        if self.config.seconds is not None:
            done = max(done, self.seconds / self.config.seconds)
        return 1 - (1 - self.config.final_rate) * done

    def log(self, row: Row, rollout: Rollout) -> None:
        """Keep an iteration's row and, now and then, a picture of its canvases and the policies."""
        self.history.append(row)
        if not self.folder.writes:
            return
        figures, iteration = self.folder.figures(), self.state.iteration
        figures.add(row)
        if iteration == 1 or iteration % PICTURES_EVERY == 0:
            sheet = contact_sheet(self.state.envs.images(rollout.canvas[:16]))
            self.folder.picture(
                f"samples-{iteration:05d}.png", "samples", sheet, figures, iteration
            )
            self.folder.keep_policies(self.state.averages, iteration)

    @contextmanager
    def bar(self, shown: bool) -> Iterator[ProgressBar]:
        """A progress bar, of seconds where they end the run, else of iterations."""
        timed = self.config.seconds is not None
        total = int(self.config.seconds or 0) if timed else self.config.iterations
        bar = progress_bar(
            total,
            "ral" if shown and self.state.processes.rank == 0 else "",
            "s" if timed else "it",
            done=min(int(self.seconds), total) if timed else self.state.iteration,
        )
        with bar:
            yield bar

    def show(self, bar: ProgressBar, row: Row) -> None:
        """Move the bar on."""
        timed = self.config.seconds is not None
        bar.update(min(int(self.seconds), bar.total) - bar.n if timed else 1)
        bar.tell(f"reward {row['reward']:+.3f}, auc {row['auc']:.2f}")
