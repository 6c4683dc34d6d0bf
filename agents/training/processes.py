"""The processes that train together: one, or all that ``torchrun`` has started."""

from __future__ import annotations

import atexit
import os
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from agents.training.files import Row
from ral_env.envs.options import torch_device


class Processes:
    """The processes that train together: this one, or all that ``torchrun`` has started.

    Attributes:
        count, rank: how many, and which one this is; the first, 0, writes files.
        device: where this one computes.

    Raises:
        ValueError: if there is no such device here.
    """

    def __init__(self, device: str | torch.device = "cpu"):
        self.accelerator: Any = None
        self.count, self.rank, self.device = 1, 0, torch_device(device)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            # First: defaults of its functions hold the group that there is when it is imported (by
            # torch.compile's modules, say), and a held group's threads run on while Python ends,
            # which aborts a process whose work was done.
            import_module("torch.distributed.nn.functional")
            from accelerate import Accelerator

            atexit.register(leave)
            self.accelerator = Accelerator(cpu=self.device.type == "cpu")
            self.count, self.rank = self.accelerator.num_processes, self.accelerator.process_index
            self.device = self.accelerator.device

    def broadcast(self, net: nn.Module) -> None:
        """Give every process the first one's weights."""
        if self.accelerator is not None:
            from accelerate.utils import broadcast

            for value in net.state_dict().values():
                value.copy_(broadcast(value.detach().clone(), from_process=0))

    def average_gradients(self, net: nn.Module) -> None:
        """Replace each gradient by its mean over the processes, all in one message.

        A wrapper around the net would do so while the backward pass runs, but its hooks do not
        expect the several forward passes of a gradient penalty.
        """
        if self.accelerator is None:
            return
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        whole = torch.cat([gradient.flatten() for gradient in gradients])
        parts = self.accelerator.reduce(whole, "mean").split([g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def barrier(self) -> None:
        """Go on only when every process has come this far."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def shard(self, whole: Tensor) -> Tensor:
        """This process's part of a tensor whose first dimension is the whole batch."""
        return whole.chunk(self.count)[self.rank] if self.count > 1 else whole

    def gather(self, part: Tensor) -> Tensor:
        """The whole batch, of the parts of all processes; without gradient."""
        part = part.detach()
        return part if self.accelerator is None else self.accelerator.gather(part.contiguous())

    def gather_objects(self, mine: Any) -> list[Any]:
        """What each process gives, in the order of their ranks; for all of them."""
        if self.accelerator is None:
            return [mine]
        from accelerate.utils import gather_object

        return gather_object([mine])

    def rand(self, *shape: int, device: torch.device | None = None) -> Tensor:
        """Uniform numbers in [0, 1) of this shape: this process's part of what one would draw for
        the whole batch. All processes' global generators must stand alike."""
        return self.shard(torch.rand(shape[0] * self.count, *shape[1:], device=device))

    def mean(self, values: Row) -> Row:
        """The mean over processes of named figures."""
        if self.accelerator is None:
            return values
        stacked = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        reduced = self.accelerator.reduce(stacked, "mean").tolist()
        return dict(zip(values, reduced, strict=True))


def leave() -> None:
    """End the group of processes and its threads, if there is one; done by itself at exit."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
