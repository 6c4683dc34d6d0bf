"""The life of a run of REINFORCE: its folder and checkpoints, its clock, its bar, its end."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agents.evaluation.evaluator import results
from agents.reinforce.state import Rollout, TrainState
from agents.training.checkpoint import Checkpoint
from agents.training.files import Row, read_rows
from agents.training.progress import ProgressBar, progress_bar
from agents.training.result import Result
from agents.training.run_folder import RunFolder
from agents.training.signals import StopSignals
from agents.training.timings import Timings
from ral_env import bundle as bundles
from ral_env import migrations
from ral_env.files import check_room
from ral_env.picture import contact_sheet

FREE = ("device", "checkpoint_every")  # what a run that goes on may change
PICTURES_EVERY = 50  # iterations


class Run:
    """Everything about a run that is not the algorithm.

    Args:
        state: what learns; if the run goes on, it takes over its checkpoint's state.
        out: the run's folder; None writes nothing.
        resume: whether to go on with the run that is there.
        clock: what seconds are counted by.

    Raises:
        ValueError: if there is a run already, none to go on with, or one of other settings.
    """

    def __init__(
        self, state: TrainState, out: Path | str | None, resume: bool, clock: Callable[[], float]
    ):
        self.state, self.config = state, state.config
        settings = dataclasses.asdict(self.config)
        self.folder = RunFolder(
            out, settings, kind="reinforce", resume=resume, free=FREE, processes=state.processes
        )
        fixed = {name: value for name, value in settings.items() if name not in FREE}
        self.checkpoint = self.folder.checkpoint(fixed, state.parts)
        self.history: list[Row] = []
        self.signals = StopSignals()
        self.seconds = 0.0  # when the present iteration began
        with ExitStack() as refused:
            refused.callback(self.close)
            if resume and self.checkpoint and self.checkpoint.exists():
                self._restore(self.checkpoint)
            self.folder.write_config()
            refused.pop_all()
        self.timings = Timings(clock, self.seconds)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the environments, and let another process have the folder."""
        self.state.envs.close()
        self.folder.close()

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        stored, of_this_process = checkpoint.restore()
        stored = migrations.renamed(stored, "checkpoint", str(checkpoint.file))
        self.state.load_state(stored["train_state"], of_this_process)
        self.state.iteration, self.seconds = stored["iteration"], stored["seconds"]
        self.history = stored.get("history", [])  # earlier versions kept it there
        if self.state.iteration and "history" not in stored:
            self.history = self._stored_history()
        if self.folder.writes:
            self.folder.figures().rewrite(self.history)

    def _stored_history(self) -> list[Row]:
        """The rows of the iterations before the checkpoint; it is warned of if some are missing."""
        file, count = self.folder.path("progress.csv"), self.state.iteration
        rows = read_rows(file)[:count] if file.exists() else []
        if len(rows) < count:
            warnings.warn(
                f"{file} has {len(rows)} rows, expected {count}, one an iteration until the "
                "checkpoint: the run goes on, and its figures lack the others",
                stacklevel=5,
            )
        return rows

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
        """Write a checkpoint, if the run has a folder.

        Raises:
            NotFiniteError: if the nets give what is not finite; the checkpoint before stays.
        """
        if self.checkpoint:
            self.state.check_outputs()
            common, of_this_process = self.state.state()
            if self.folder.writes and self.history:
                self.folder.figures().sync()  # the checkpoint counts on its rows
            stored = {
                "train_state": common,
                "iteration": self.state.iteration,
                "seconds": self._elapsed(),
            }
            self.checkpoint.save(stored, of_this_process)

    def _elapsed(self) -> float:
        """Seconds so far; all processes stop together, so they must agree on it."""
        return self.state.processes.mean({"seconds": self.timings.elapsed})["seconds"]

    def is_asked_to_stop(self) -> bool:
        """Whether a signal came, to any of the processes."""
        return self.signals.came(self.state.processes)

    def is_over(self) -> bool:
        """Whether the iterations are done, the seconds over, or a signal came. Begins an iteration
        if not."""
        if self.state.iteration >= self.config.iterations or self.is_asked_to_stop():
            return True
        self.seconds = self._elapsed()
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

    def finish(self) -> Result:
        """Write what the run leaves; the figures of its policies only if it came to its end."""
        state, config = self.state, self.config
        averages = list(state.averages.cpu())
        state.adversary.net.cpu()
        result = Result(
            averages, state.adversary.net, self.history, self._elapsed(), self.signals.received
        )
        if self.folder.writes:
            figures = {
                "algo": "reinforce", "env": config.env, "seed": config.seed,
                "iterations": state.iteration,
                "canvases": state.iteration * config.canvases, "seconds": result.seconds,
            }  # fmt: skip
            if not result.interrupted:
                figures |= results(
                    state.bundle, averages, seed=config.seed, reward_fn=config.reward_fn
                )
            adversary = state.adversary
            self.folder.finish(
                state.bundle,
                averages,
                figures,
                complete=not result.interrupted,
                discriminator=adversary.net,
                discriminator_input=adversary.input,
                reward_scale=adversary.normaliser.scale,
            )
        return result
