"""One routine trains whatever has a loss: the stages of pretraining, and RL's control arm.

Which examples an update sees depends on the seed and its number alone, and all else that it depends
on is in the checkpoint: a run that was cut goes on as if it had not been. The examples do not
depend on the number of processes: several, started by ``torchrun``, make the update of one.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from agents.training import finite
from agents.training.checkpoint import Checkpoint
from agents.training.files import Row
from agents.training.processes import Processes
from agents.training.progress import progress_bar
from agents.training.signals import StopSignals
from ral_env.ranges import check_ranges

FREE = ("checkpoint_every", "workers")  # settings that change nothing of what is learnt


@dataclass(frozen=True)
class Training:
    """How something is trained.

    Args:
        steps: Largest number of updates.
        batch: Number of examples per update, over all processes together.
        learning_rate: Learning rate of AdamW.
        schedule: ``constant``, or ``cosine`` down to ``final_rate`` of the learning rate.
        final_rate: Share of the learning rate that is left at the end.
        warmup: Number of updates in which the learning rate rises from zero.
        betas: Decay rates of AdamW's two moments.
        weight_decay: Weight decay of AdamW.
        clip: Largest norm of the gradient; 0 does not clip.
        ema: Decay of the running average of the weights that is validated and kept; 0 keeps none.
        accumulate: Number of parts in which a process computes its share of a batch, to save
            memory.
        precision: ``bfloat16`` computes losses in mixed precision; weights stay float32.
        recompute: Whether a net that can (a PixelCNN) computes activations anew on the way back
            instead of keeping them: a third more time, and a fraction of the memory.
        validate_every: Number of updates between validations; 0 is a tenth of the steps.
        patience: Number of validations without a new best before training stops; 0 never stops
            early.
        checkpoint_every: Number of updates between checkpoints, where a place for them is given.
        workers: Number of processes that load examples ahead; 0 loads them when they are needed.
    """

    steps: int = 10_000
    batch: int = 128
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "cosine"
    final_rate: float = 0.1
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float = 0.0
    ema: float = 0.0
    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    recompute: bool = False
    validate_every: int = 0
    patience: int = 0
    checkpoint_every: int = 500
    workers: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            steps="[1, inf)",
            batch="[1, inf)",
            learning_rate="(0, inf)",
            final_rate="[0, inf)",
            warmup="[0, inf)",
            betas="[0, 1)",
            weight_decay="[0, inf)",
            clip="[0, inf)",
            ema="[0, 1)",
            accumulate="[1, inf)",
            validate_every="[0, inf)",
            patience="[0, inf)",
            checkpoint_every="[1, inf)",
            workers="[0, inf)",
        )

    @property
    def period(self) -> int:
        """Updates between validations."""
        return self.validate_every or max(1, self.steps // 10)

    def rate(self, step: int) -> float:
        """The learning rate of update ``step``, counted from 0."""
        share = 1.0
        if self.schedule == "cosine":
            done = min(step / self.steps, 1)
            share = self.final_rate + (1 - self.final_rate) * (1 + math.cos(math.pi * done)) / 2
        if self.warmup:
            share *= min(1, (step + 1) / self.warmup)
        return self.learning_rate * share


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)


def examples(count: int, batch: int, seed: int, step: int) -> Tensor:
    """Indices (batch,) that update ``step`` sees: one shuffled epoch of ``count`` after another."""
    first = step * batch
    epochs = range(first // count, (first + batch - 1) // count + 1)
    run = torch.cat([_shuffled(count, seed, epoch) for epoch in epochs])
    return run[first % count : first % count + batch]


def average_into(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Move every tensor of ``average`` towards that of ``net`` by 1 - decay."""
    with torch.no_grad():
        for mine, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            mine.lerp_(new, 1 - decay) if mine.is_floating_point() else mine.copy_(new)


class _Loaded:
    """What a DataLoader asks for examples, a whole batch at a time."""

    def __init__(self, load: Callable[[Tensor], Any]):
        self.load = load

    def __getitems__(self, indices: list[int]) -> Any:
        return self.load(torch.tensor(indices))

    def __getitem__(self, index: int) -> Any:
        return self.load(torch.tensor([index]))


def _itself(batch: Any) -> Any:
    return batch


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    return tuple(_to(part, device) for part in batch) if isinstance(batch, tuple | list) else batch


def optimise(
    net: nn.Module,
    losses: Callable[[Any], dict[str, Tensor]],
    load: Callable[[Tensor], Any],
    count: int,
    validate: Callable[[nn.Module], Row],
    training: Training,
    *,
    seed: int = 0,
    seconds: float | None = None,
    log: Callable[[list[Row], Any], None] | None = None,
    label: str = "",
    checkpoint: Path | None = None,
    also: Sequence[nn.Module] = (),
    device: str | torch.device = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> list[Row]:
    """Train in place and leave the weights that were best in validation.

    Args:
        net: what learns; on ``device`` and in eval mode afterwards.
        losses: a batch to named losses, whose sum is minimised. Uses ``net``.
        load: indices (n,) of examples to a batch: a tensor, or a tuple of tensors and Nones.
        count: how many examples there are.
        validate: figures of a net (``net`` or its average); the first named is to be low.
        training: the settings.
        seed: of the order of the examples, and of dropout and augmentation.
        seconds: stop after this much time, validation included, if it comes before the steps.
        log: called for each new row with the history so far and the net that the row is about.
        label: shows a progress bar of that name, with the time left and each row; none if empty.
        checkpoint: a file. If it is there, training goes on from it, to the bit on the CPU.
        also: modules with state that ``losses`` changes beside the net's own.
        device: where to compute.
        clock: what seconds are counted by, such as ``time.process_time``.

    Returns:
        Rows of ``step``, ``seconds``, ``train_NAME`` of each loss (means since the last row; none
        in the first row, which is the net as it came) and the figures of ``validate``.

    Raises:
        ValueError: if the batch cannot be shared out evenly, or the checkpoint is of other
            settings.
        NotFiniteError: if a loss, a gradient or a weight is not finite. The last checkpoint stays.
        KeyboardInterrupt: after Ctrl-C; or SystemExit, after SIGTERM or SIGHUP: at the end of the
            update, with a checkpoint.
    """
    run = _Optimisation(net, losses, training, Processes(device), also, seed, clock)
    fixed = {name: value for name, value in asdict(training).items() if name not in FREE}
    settings = {"seed": seed, "examples": count, **fixed}
    saved = checkpoint and Checkpoint(
        checkpoint, settings, run.parts, run.processes, kind="training"
    )
    if saved and saved.exists():
        run.state |= saved.restore()[0]
    elif saved:
        saved.save(run.state)  # where to begin anew, and whether it can be written at all
    run.start_clock()
    batches = _batches(load, count, training, seed, run.state["step"], run.processes)
    name = label if run.processes.rank == 0 else ""
    bar = progress_bar(training.steps, name, "step", run.state["step"])
    with bar, StopSignals() as signals, finite.naming_last_good(checkpoint):
        while True:
            finished = run.is_over(seconds)
            if run.is_validation_due(finished):
                row, candidate = run.validate(validate)
                if name:
                    bar.write(f"{name} {_told(row)}")
                if log and run.processes.rank == 0:
                    log(run.state["history"], candidate)
            if finished or run.is_out_of_patience():
                break
            run.update(batches)
            bar.update()
            asked = signals.came(run.processes)
            if saved and (asked or run.state["step"] % training.checkpoint_every == 0):
                run.count_seconds()
                saved.save(run.state)
            if asked:
                signals.leave()
    run.keep_best()
    if saved:
        saved.save(run.state)
    return run.state["history"]


def _told(row: Row) -> str:
    """A row's step and figures, for people."""
    figures = {k: v for k, v in row.items() if k not in ("step", "seconds")}
    return f"{row['step']}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items())


class _Optimisation:
    """The net, its average and optimiser, and where the training stands.

    ``state`` is what a checkpoint keeps beside ``parts``: the step, seconds and history, the sums
    of losses since the last row, and the best weights so far.
    """

    def __init__(
        self,
        net: nn.Module,
        losses: Callable[[Any], dict[str, Tensor]],
        training: Training,
        processes: Processes,
        also: Sequence[nn.Module],
        seed: int,
        clock: Callable[[], float],
    ):
        shares = processes.count * training.accumulate
        if training.batch % shares:
            raise ValueError(
                f"batch={training.batch} cannot be shared by {processes.count} processes in "
                f"accumulate={training.accumulate} parts each: choose a multiple of {shares}"
            )
        self.net, self.losses, self.training, self.processes = net, losses, training, processes
        self.clock = clock
        torch.manual_seed(seed + 1_000 * processes.rank)
        net.to(processes.device)
        if isinstance(getattr(net, "recompute", None), bool):
            net.recompute = training.recompute  # type: ignore[assignment]
        for module in also:
            module.to(processes.device)
        processes.broadcast(net)
        self.optimizer = torch.optim.AdamW(
            net.parameters(),
            lr=training.learning_rate,
            betas=training.betas,
            weight_decay=training.weight_decay,
        )
        self.average = copy.deepcopy(net)
        self.parts: dict[str, Any] = {
            "net": net,
            "average": self.average,
            "optimizer": self.optimizer,
            **{f"also_{i}": module for i, module in enumerate(also)},
        }
        self.state: dict[str, Any] = {
            "step": 0, "seconds": 0.0, "history": [], "sums": {}, "summed": 0,
            "best": math.inf, "since_best": 0, "best_state": {},
        }  # fmt: skip

    def start_clock(self) -> None:
        """Count seconds from here, those before the training was cut included."""
        self.began = self.clock() - self.state["seconds"]

    def count_seconds(self) -> None:
        """Let the state say how long the training has taken."""
        self.state["seconds"] = self.clock() - self.began

    def is_over(self, seconds: float | None) -> bool:
        """Whether all steps are done, or the seconds over."""
        self.count_seconds()
        late = seconds is not None and self.state["seconds"] >= seconds
        return self.state["step"] >= self.training.steps or late

    def is_validation_due(self, finished: bool) -> bool:
        """Whether this step is to have a row. A resumed run has one of what it is resumed at."""
        step, history = self.state["step"], self.state["history"]
        validated = bool(history) and history[-1]["step"] == step
        return (step % self.training.period == 0 or finished) and not validated

    def validate(self, measure: Callable[[nn.Module], Row]) -> tuple[Row, nn.Module]:
        """A row for the history, and the net that it is about; the best weights are noted."""
        state = self.state
        candidate = self.average if self.training.ema else self.net
        candidate.eval()
        with torch.no_grad():
            figures = measure(candidate)
        means = {f"train_{k}": v / state["summed"] for k, v in state["sums"].items()}
        row = {
            "step": state["step"],
            "seconds": state["seconds"],
            **self.processes.mean(means),
            **figures,
        }
        state["history"].append(row)
        state["sums"], state["summed"] = {}, 0
        state["since_best"] += 1
        if (figure := next(iter(figures.values()))) < state["best"]:
            state["best"], state["since_best"] = figure, 0
            state["best_state"] = {k: v.clone() for k, v in candidate.state_dict().items()}
        return row, candidate

    def is_out_of_patience(self) -> bool:
        """Whether the best figure is too many validations ago."""
        patience = self.training.patience
        return bool(patience) and self.state["since_best"] >= patience

    def update(self, batches: Iterator[Any]) -> None:
        """One update, on this process's parts of the next batch."""
        training, step = self.training, self.state["step"]
        for group in self.optimizer.param_groups:
            group["lr"] = training.rate(step)
        self.net.train()
        self.optimizer.zero_grad()
        for _ in range(training.accumulate):
            self._backward(next(batches))
        self.processes.average_gradients(self.net)
        if training.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), training.clip)
        finite.step(self.net, self.optimizer, f"update {step + 1}'s", self._remedy())
        self.state["step"] = step + 1
        if training.ema:
            # A short memory at first, so that the average does not carry the random start.
            average_into(self.average, self.net, min(training.ema, (step + 1) / (step + 11)))

    def _backward(self, batch: Any) -> None:
        """Add the gradient of a part of a batch, and its losses to the sums of the next row."""
        training, state = self.training, self.state
        kind = self.processes.device.type
        mixed = torch.autocast(kind, torch.bfloat16, enabled=training.precision == "bfloat16")
        with mixed:
            named = self.losses(batch)
        finite.check_losses(named, f"update {state['step'] + 1}'s", self._remedy())
        total = torch.stack([loss.float().sum() for loss in named.values()]).sum()
        (total / training.accumulate).backward()
        for name, loss in named.items():
            state["sums"][name] = state["sums"].get(name, 0.0) + loss.item() / training.accumulate
        state["summed"] += 1 / training.accumulate

    def _remedy(self) -> str:
        """What to do when it diverges."""
        rate = self.training.learning_rate
        return f"lower the learning rate ({rate}), clip the gradient, or look at the data"

    def keep_best(self) -> None:
        """Leave the weights that were best in validation in the net."""
        self.net.load_state_dict(self.state["best_state"])
        self.net.eval()


def _batches(
    load: Callable[[Tensor], Any],
    count: int,
    training: Training,
    seed: int,
    first: int,
    processes: Processes,
) -> Iterator[Any]:
    """This process's parts of every batch from step ``first`` on, on its device."""
    shares = processes.count * training.accumulate

    def indices() -> Iterator[list[int]]:
        for step in range(first, training.steps):
            whole = examples(count, training.batch, seed, step).chunk(shares)
            yield from (part.tolist() for part in whole[processes.rank :: processes.count])

    loader = DataLoader(
        _Loaded(load),  # type: ignore[arg-type]
        batch_sampler=indices(),  # type: ignore[arg-type]
        num_workers=training.workers,
        collate_fn=_itself,
        generator=torch.Generator(),  # the global one is part of what must go on exactly
    )
    for batch in loader:
        yield _to(batch, processes.device)
