"""The life of a policy's training: its folder and checkpoints, its rows, its end.

REINFORCE and learning in rounds are such trainings; each adds what it logs, shows and is ended by.
"""

from __future__ import annotations

import dataclasses
import signal
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch

from agents.training.checkpoint import Checkpoint
from agents.training.discriminator import Adversary, Canvases
from agents.training.files import Row, read_rows
from agents.training.finite import check_losses
from agents.training.processes import Processes
from agents.training.result import Result
from agents.training.run_folder import RunFolder
from agents.training.timings import Timings
from ral_env import bundle as bundles
from ral_env import migrations
from ral_env.files import check_room
from ral_env.nets import joint


class Learner(Protocol):
    """What a policy's training learns, and everything that decides how it goes on.

    Attributes:
        config: the settings, a dataclass with ``env``, ``seed`` and ``canvases``.
        bundle: what it began with.
        processes: those that train together.
        adversary: the discriminator.
        real: the training split's canvases.
        iteration: how many iterations, or rounds, are done.
    """

    config: Any
    bundle: bundles.Bundle
    processes: Processes
    adversary: Adversary
    real: Canvases
    iteration: int

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint keeps by ``state_dict``, by name."""
        ...

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All else that the next iteration depends on: common to all processes, and this one's."""
        ...

    def load_state(self, common: dict[str, Any], of_this_process: dict[str, Any] | None) -> None:
        """Take over what :meth:`state` gave."""
        ...


State = TypeVar("State", bound=Learner)


class PolicyRun(ABC, Generic[State]):
    """Everything about a run that is not the algorithm.

    Args:
        state: what learns; if the run goes on, it takes over its checkpoint's state.
        out: the run's folder; None writes nothing.
        resume: whether to go on with the run that is there.
        clock: what seconds are counted by.

    Attributes:
        algo: name of the algorithm, which is the kind of its settings for
            :mod:`ral_env.migrations`.
        free: settings that a run which goes on may change.
        history: the rows so far.
        before: seconds that the run had taken when it was cut.

    Raises:
        ValueError: if there is a run already, none to go on with, or one of other settings or
            another bundle.
    """

    algo: ClassVar[str]
    free: ClassVar[tuple[str, ...]]

    def __init__(
        self, state: State, out: Path | str | None, resume: bool, clock: Callable[[], float]
    ):
        self.state, self.config = state, state.config
        settings = dataclasses.asdict(self.config)
        self.folder = RunFolder(
            out,
            settings | {"bundle_digest": state.bundle.digest},
            kind=self.algo,
            resume=resume,
            free=self.free,
            stands_for={"bundle": "bundle_digest"},
            processes=state.processes,
        )
        fixed = {k: v for k, v in settings.items() if k not in (*self.free, "bundle")}
        self.checkpoint = self.folder.checkpoint(fixed, state.parts)
        self.history: list[Row] = []
        self.before = 0.0
        with ExitStack() as refused:
            refused.callback(self.close)
            if resume and self.checkpoint and self.checkpoint.exists():
                self._restore(self.checkpoint)
            self.folder.write_config()
            refused.pop_all()
        self.timings = Timings(clock, self.before)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process have the folder."""
        self.folder.close()

    @property
    @abstractmethod
    def policies(self) -> Sequence[Any]:
        """What the run returns: one a level, top first, on the CPU."""

    @property
    @abstractmethod
    def interrupted(self) -> signal.Signals | None:
        """The signal that stopped it, or None."""

    @property
    @abstractmethod
    def learnt(self) -> Sequence[Any]:
        """Policies that a checkpoint holds, on the run's device: those that learn, averages."""

    @abstractmethod
    def measure(self, policies: Sequence[Any]) -> dict[str, Any]:
        """Figures of the policies that a run returns which came to its end."""

    def begin(self) -> None:
        """Write the first checkpoint of a new run, and see that there is room for its bundle.

        Raises:
            DiskError: if there is none.
        """
        if self.checkpoint and not self.checkpoint.exists():
            self.save()
        if self.folder.writes:
            size = bundles.size_of(self.state.bundle)
            check_room(self.folder.path(), size, "the bundle that the run will leave")

    @property
    def checkpoint_file(self) -> Path | None:
        """What the run goes on from; None if it writes nothing."""
        return self.checkpoint and self.checkpoint.file

    def save(self) -> None:
        """Write a checkpoint, if the run has a folder. The rows are in progress.csv, not in it.

        Raises:
            NotFiniteError: if the nets give what is not finite; the checkpoint before stays.
        """
        if self.checkpoint:
            self._check_outputs()
            common, of_this_process = self.state.state()
            if self.folder.writes and self.history:
                self.folder.figures().sync()  # the checkpoint counts on its rows
            stored = {
                "train_state": common,
                "iteration": self.state.iteration,
                "rows": len(self.history),
                "seconds": self.elapsed(),
            }
            self.checkpoint.save(stored, of_this_process)

    @torch.no_grad()
    def _check_outputs(self) -> None:
        """See that policies and discriminator say something finite of a real canvas.

        Weights can be finite, and so large that what follows from them is not.
        """
        adversary = self.state.adversary
        grids = [grid[:1] for grid in self.state.real.grids]
        for nets in self.learnt:
            log_prob = joint.total_log_prob(nets, grids)
            remedy = f"lower learning_rate={self.config.learning_rate}"
            check_losses({"log_prob": log_prob}, "the policy's", remedy)
        scores = adversary.net(adversary.inputs(grids))
        remedy = f"lower its learning rate ({self.config.discriminator.learning_rate})"
        check_losses({"score": scores}, "the discriminator's", remedy)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        stored, of_this_process = checkpoint.restore()
        stored = migrations.checkpoint(stored, str(checkpoint.file))
        self.state.load_state(stored["train_state"], of_this_process)
        self.state.iteration, self.before = stored["iteration"], stored["seconds"]
        # Earlier versions kept the rows in the checkpoint.
        self.history = stored.get("history") or self._stored_rows(stored["rows"])
        if self.folder.writes:
            self.folder.figures().rewrite(self.history)

    def _stored_rows(self, count: int) -> list[Row]:
        """The rows before the checkpoint; it is warned of if some are missing."""
        file = self.folder.path("progress.csv")
        rows = read_rows(file, count) if file.exists() else []
        if len(rows) < count:
            warnings.warn(
                f"{file} has {len(rows)} rows, expected {count}, as many as there were at the "
                "checkpoint: the run goes on, and its figures lack the others",
                stacklevel=5,
            )
        return rows

    def elapsed(self) -> float:
        """Seconds since the run began, those before it was cut included.

        All processes stop together, so they must agree on it.
        """
        return self.state.processes.mean({"seconds": self.timings.elapsed})["seconds"]

    def finish(self) -> Result:
        """Write what the run leaves; the figures of its policies only if it came to its end."""
        state, config, policies = self.state, self.config, list(self.policies)
        adversary = state.adversary
        adversary.net.cpu()
        result = Result(policies, adversary.net, self.history, self.elapsed(), self.interrupted)
        if self.folder.writes:
            figures: dict[str, Any] = {
                "algo": self.algo, "env": config.env, "seed": config.seed,
                "iterations": state.iteration,
                "canvases": state.iteration * config.canvases, "seconds": result.seconds,
            }  # fmt: skip
            if not result.interrupted:
                figures |= self.measure(policies)
            self.folder.finish(
                state.bundle,
                policies,
                figures,
                complete=not result.interrupted,
                discriminator=adversary.net,
                discriminator_input=adversary.input,
                reward_scale=adversary.normaliser.scale,
            )
        return result
