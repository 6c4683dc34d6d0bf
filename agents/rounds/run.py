"""The life of a run in rounds: its folder and checkpoints, its clock, its bar, its end."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from torch import Tensor

from agents.evaluation.evaluator import results
from agents.rounds.state import TrainState
from agents.training.files import Row
from agents.training.progress import progress_bar
from agents.training.result import Result
from agents.training.run_folder import RunFolder
from agents.training.signals import StopSignals
from agents.training.timings import Timings
from ral_env.picture import contact_sheet, to_bytes

FREE = ("device", "rounds", "seconds")  # what a run that goes on may change


class Run:
    """Everything about a run that is not the algorithm.

    Args:
        state: what learns; if the run goes on, it takes over its checkpoint's state.
        out: the run's folder; None writes nothing.
        resume: whether to go on with the run that is there.
        clock: what seconds are counted by.

    Attributes:
        history: the rows so far; the first is of the prior as it came.
        drawn: the canvases that the policy was last measured on.
        last_figures: those of the discriminator against the policy that is returned.

    Raises:
        ValueError: if there is a run already, none to go on with, or one of other settings.
    """

    def __init__(
        self, state: TrainState, out: Path | str | None, resume: bool, clock: Callable[[], float]
    ):
        self.state, self.config = state, state.config
        settings = dataclasses.asdict(self.config)
        self.folder = RunFolder(out, settings, kind="rounds", resume=resume, free=FREE)
        fixed = {name: value for name, value in settings.items() if name not in FREE}
        self.checkpoint = self.folder.checkpoint(fixed, state.parts)
        self.history: list[Row] = []
        self.drawn: Sequence[Tensor] = ()
        self.last_figures = Row()
        self.interrupted: signal.Signals | None = None
        before = 0.0
        with ExitStack() as refused:
            refused.callback(self.folder.close)
            if resume and self.checkpoint and self.checkpoint.exists():
                stored, _ = self.checkpoint.restore()
                state.load_state(stored["train_state"])
                self.history, before = stored["history"], stored["seconds"]
                self.folder.figures().rewrite(self.history)
            self.folder.write_config()
            refused.pop_all()
        self.timings = Timings(clock, before)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.folder.close()

    @contextmanager
    def until_stopped(self) -> Iterator[None]:
        """Ctrl-C, SIGTERM and SIGHUP end at once what is done within."""
        signals = StopSignals(at_once=True)
        try:
            with signals:
                yield
        except KeyboardInterrupt:
            self.interrupted = signals.received or signal.SIGINT
        except SystemExit:
            if signals.received is None:
                raise
            self.interrupted = signals.received

    @property
    def checkpoint_file(self) -> Path | None:
        """What the run goes on from; None if it writes nothing."""
        return self.checkpoint and self.checkpoint.file

    @property
    def seconds(self) -> float:
        """Seconds since the run began, those before it was cut included."""
        return self.timings.elapsed

    def is_out_of_time(self) -> bool:
        """Whether the seconds that the run was given are over."""
        return self.config.seconds is not None and self.seconds >= self.config.seconds

    def log(self, row: Row) -> None:
        """Keep a round's row, a picture of its canvases and the policies; write a checkpoint."""
        row = row | {"seconds": self.seconds} | self.timings.take()
        self.history.append(row)
        self._bar.update(self.state.round - self._bar.n)
        if not self.folder.writes:
            return
        figures, number = self.folder.figures(), self.state.round
        figures.add(row)
        sheet = contact_sheet(to_bytes(self.state.decode([grid[:16] for grid in self.drawn])))
        self.folder.picture(f"samples-{number:05d}.png", "samples", sheet, figures, number)
        self.folder.keep_policies(self.state.policies, number)
        assert self.checkpoint is not None
        self.checkpoint.save(
            {
                "train_state": self.state.state(),
                "history": self.history,
                "seconds": self.seconds,
            }
        )

    @contextmanager
    def bar(self, shown: bool) -> Iterator[None]:
        """A progress bar of rounds."""
        label = "ral" if shown else ""
        self._bar = progress_bar(self.config.rounds, label, "round", done=self.state.round)
        with self._bar:
            yield

    def show(self, doing: str) -> None:
        """Say beside the bar what is being done, and how the last round ended."""
        row = self.history[-1] if self.history else {}
        told = [f"{name} {row[name]:.3g}" for name in ("auc", "ess", "forward_nll") if name in row]
        self._bar.tell(", ".join([doing, *told]))

    def finish(self) -> Result:
        """Write what the run leaves."""
        state, config = self.state, self.config
        policies = list(state.policies.cpu())
        adversary = state.adversary
        adversary.net.cpu()
        result = Result(policies, adversary.net, self.history, self.seconds, self.interrupted)
        if self.folder.writes:
            figures = {
                "algo": "rounds", "env": config.env, "seed": config.seed,
                "iterations": state.round, "canvases": state.round * config.canvases,
                "seconds": result.seconds,
            }  # fmt: skip
            if not self.interrupted:
                figures |= {name: self.last_figures[name] for name in ("auc", "ess")}
                figures |= results(state.bundle, policies, seed=config.seed)
            self.folder.finish(
                state.bundle,
                policies,
                figures,
                complete=not self.interrupted,
                discriminator=adversary.net,
                discriminator_input=adversary.input,
                reward_scale=adversary.normaliser.scale,
            )
        return result
