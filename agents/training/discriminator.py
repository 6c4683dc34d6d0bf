"""The adversary: a discriminator, what it is shown, how it learns and how its scores are scaled.

REINFORCE, learning in rounds, the callback for Stable-Baselines3 and pretraining use this one. Real
is high, always.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.training import finite
from agents.training.processes import Processes
from ral_env.bundle import Bundle
from ral_env.nets import Codec, PatchGANConfig, represent
from ral_env.ranges import check_ranges
from ral_env.reward import NORMALISERS, Normaliser

INPUT_BYTES = 2**28  # of decoded canvases that a set of them keeps in memory at most
MAPPED_BYTES = 2**31  # of those that it keeps in a file


@dataclass(frozen=True)
class DiscriminatorTraining:
    """How a discriminator learns. The defaults are the paper's (section 4.4).

    Args:
        loss: Loss of the discriminator. ``wgan-gp`` is Eq. 5; with ``logistic`` the score estimates
            a log density ratio; ``hinge`` stops at a margin (Lim & Ye 2017, arXiv 1705.02894).
        learning_rate: Learning rate of the discriminator's Adam.
        betas: Decay rates of that Adam's two moments.
        gradient_penalty: Weight of the gradient penalty, Eq. 5's last term (wgan-gp only).
        r1: Weight of the squared gradient norm on real inputs (logistic and hinge; Mescheder et
            al. 2018, arXiv 1801.04406).
        shift: Augmentation: inputs are moved by up to this many cells, and zeros come in.
        drop: Augmentation: this share of an input's cells is set to zero.
    """

    loss: Literal["wgan-gp", "logistic", "hinge"] = "wgan-gp"
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    gradient_penalty: float = 10.0
    r1: float = 0.0
    shift: int = 0
    drop: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            learning_rate="(0, inf)",
            betas="[0, 1)",
            gradient_penalty="[0, inf)",
            r1="[0, inf)",
            shift="[0, inf)",
            drop="[0, 1)",
        )


def check_shift(training: DiscriminatorTraining, bundle: Bundle, input: str) -> None:
    """Refuse an augmentation that moves all that a discriminator is shown out of its sight.

    Args:
        training: how it learns.
        bundle: whose canvases it is shown.
        input: ``image``, or ``codes`` for codebook vectors.

    Raises:
        ValueError: says by how much an input may be moved at most.
    """
    side = bundle.image_size if input == "image" else min(bundle.layout.levels[-1])
    if training.shift >= side:
        raise ValueError(
            f"discriminator.shift={training.shift}, expected less than {side}: inputs of "
            f"discriminator_input={input!r} have as many cells a side"
        )


def scores(net: nn.Module, inputs: Tensor) -> Tensor:
    """D(x), the mean of the score map (Eq. 6): (B,)."""
    return net(inputs).mean((1, 2, 3))


def auc(real: Tensor, fake: Tensor) -> float:
    """Chance that a real input scores above a fake one; ties count half. 0.5 is blind.

    Args:
        real, fake: scores, (N,) and (M,).
    """
    both = torch.cat([real, fake]).double()
    _, inverse, counts = both.unique(return_inverse=True, return_counts=True)
    # Mean rank of each group of ties, from 1; the Mann-Whitney U of the real ones follows.
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[inverse]
    u = ranks[: len(real)].sum() - len(real) * (len(real) + 1) / 2
    return (u / (len(real) * len(fake))).item()


def wgan_gp_loss(
    net: nn.Module, real: Tensor, fake: Tensor, share: Tensor, weight: float
) -> dict[str, Tensor]:
    """Eq. 5. ``real`` and ``fake`` are inputs of the same shape (B, C, H, W); ``share`` in [0, 1],
    (B, 1, 1, 1), is where between the two the gradient's norm is looked at."""
    wasserstein = scores(net, fake).mean() - scores(net, real).mean()
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(scores(net, between).sum(), between, create_graph=True)
    penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return {"wasserstein": wasserstein, "gradient_penalty": weight * penalty}


def logistic_loss(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of real against fake scores (B,); at its minimum a score is
    log p(real) / p(fake)."""
    return {"cross_entropy": F.softplus(-real).mean() + F.softplus(fake).mean()}


def hinge_loss(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Scores (B,) are pushed apart until the real ones are above 1 and the fake ones below -1."""
    return {"hinge": F.relu(1 - real).mean() + F.relu(1 + fake).mean()}


def with_r1(
    loss: Callable[[Tensor, Tensor], dict[str, Tensor]],
    net: nn.Module,
    real: Tensor,
    fake: Tensor,
    r1: float,
) -> dict[str, Tensor]:
    """A loss of scores, and the penalty on the gradient at real inputs."""
    real = real.detach().requires_grad_(r1 > 0)
    real_scores = scores(net, real)
    losses = loss(real_scores, scores(net, fake))
    if r1 > 0:
        (gradient,) = torch.autograd.grad(real_scores.sum(), real, create_graph=True)
        losses["r1"] = r1 / 2 * gradient.square().flatten(1).sum(1).mean()
    return losses


LOSSES = {"logistic": logistic_loss, "hinge": hinge_loss}


def augment(inputs: Tensor, shift: int, drop: float, processes: Processes) -> Tensor:
    """Shift each input by up to ``shift`` cells and zero a share ``drop`` of its cells.

    Both sides of the discriminator's training see it, the rewards do not.
    """
    batch, _, height, width = inputs.shape
    if shift:
        padded = F.pad(inputs, (shift,) * 4)
        moves = processes.rand(batch, 2, device=inputs.device)
        top, left = (moves * (2 * shift + 1)).long().unbind(1)
        rows = top[:, None] + torch.arange(height, device=inputs.device)  # (B, H)
        columns = left[:, None] + torch.arange(width, device=inputs.device)  # (B, W)
        index = torch.arange(batch, device=inputs.device)
        inputs = padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        inputs = inputs.permute(0, 3, 1, 2)
    if drop:
        inputs = inputs * (processes.rand(batch, 1, height, width, device=inputs.device) >= drop)
    return inputs


class Adversary:
    """A discriminator with its optimiser, its view of codes, and the scale of its scores.

    Of several processes each gives its own part of the batch; together they make the update of the
    whole.

    Args:
        net: maps inputs (B, C, H, W) to a score map (B, 1, h', w'); real is high.
        training: how it learns.
        codec: what codes are decoded or looked up with; None where :meth:`inputs` is not called.
        input: what the net is shown of codes: ``image``, or ``codes`` for codebook vectors.
        normaliser: brings its scores into [-1, 1]; by default by the largest of each batch.
        processes: those that train together; by default this one.

    Attributes:
        optimizer: Adam, over the net's parameters.
    """

    def __init__(
        self,
        net: nn.Module,
        training: DiscriminatorTraining,
        *,
        codec: Codec | None = None,
        input: str = "image",
        normaliser: Normaliser | None = None,
        processes: Processes | None = None,
    ):
        self.net = net
        self.training = training
        self.codec = codec
        self.input = input
        self.normaliser = normaliser or NORMALISERS["batch"]()
        self.processes = processes or Processes(next(net.parameters()).device)
        self.renew_optimizer()

    def renew_optimizer(self) -> None:
        """Begin anew with an Adam that has seen no gradient yet."""
        self.optimizer = torch.optim.Adam(
            self.net.parameters(), lr=self.training.learning_rate, betas=self.training.betas
        )

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, by name; each part has ``state_dict``."""
        return {
            "discriminator": self.net,
            "discriminator_optimizer": self.optimizer,
            "normaliser": self.normaliser,
        }

    @torch.no_grad()
    def inputs(self, grids: Sequence[Tensor], batch: int | None = None) -> Tensor:
        """What the net is shown of codes (B, h, w), a grid a level: (B, C, H, W).

        Args:
            batch: canvases that are decoded together; all if not given.
        """
        assert self.codec is not None, "an adversary without a codec is given inputs, not codes"
        if batch is None:
            return represent(self.codec, grids, self.input)
        parts = zip(*(grid.split(batch) for grid in grids), strict=True)
        return torch.cat([represent(self.codec, part, self.input) for part in parts])

    def update(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """One step on inputs of the same shape (B, C, H, W); returns the named losses.

        Raises:
            NotFiniteError: if a loss or a gradient is not finite; the parameters are left as they
                were. Or if the parameters are not finite after the step.
        """
        t = self.training
        real, fake = (augment(x, t.shift, t.drop, self.processes) for x in (real, fake))
        self.net.train()
        if t.loss == "wgan-gp":
            share = self.processes.rand(len(real), 1, 1, 1, device=real.device)
            losses = wgan_gp_loss(self.net, real, fake, share, t.gradient_penalty)
        else:
            losses = with_r1(LOSSES[t.loss], self.net, real, fake, t.r1)
        remedy = f"lower its learning rate ({t.learning_rate}) or look for non-finite inputs"
        finite.check_losses(losses, "the discriminator's", remedy)
        self.optimizer.zero_grad()
        # Not the gradient of the real inputs, which a penalty looks at but nothing learns from.
        torch.stack(list(losses.values())).sum().backward(inputs=list(self.net.parameters()))
        self.processes.average_gradients(self.net)
        finite.step(self.net, self.optimizer, "the discriminator's", remedy)
        self.net.eval()
        return {name: value.item() for name, value in losses.items()}

    @torch.no_grad()
    def score_maps(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Raw score maps (B, 1, h', w') of real and of fake inputs, of this process."""
        return self.net(real), self.net(fake)

    @torch.no_grad()
    def held_out_auc(self, real: Tensor, fake: Tensor) -> float:
        """AUC on inputs (B, C, H, W) that this discriminator has not been trained on."""
        return auc(scores(self.net, real), scores(self.net, fake))

    def score_in(self, envs: Any) -> None:
        """Let environments score with a copy of the net as it is now, and with its scale."""
        envs.set_discriminator(self.net, self.normaliser.scale, self.input)


class Canvases:
    """Canvases to draw batches from, and what an adversary is shown of them.

    They are the real ones of a split, or those that a policy has written.

    Args:
        grids: int64 codes (N, h, w), a grid a level, on the device of the adversary's codec.
        adversary: who is to be shown them.
        generator: draws which ones; every process draws for the whole batch and takes its part.
        memory: bytes of whole canvases' inputs that are kept in memory once they have been made,
            so that they are not decoded again for each update. On the CPU up to
            :data:`MAPPED_BYTES` are kept in a memory map, whose file has no name and goes with the
            process, if the folder of temporary files has room for twice as much. 0 keeps none.
    """

    def __init__(
        self,
        grids: Sequence[Tensor],
        adversary: Adversary,
        generator: torch.Generator,
        memory: int = INPUT_BYTES,
    ):
        self.grids = grids
        self.adversary = adversary
        self.generator = generator
        self.memory = memory
        self._inputs: Tensor | None = None  # of all canvases, once they have been made
        self._fits: bool | None = None if memory else False  # whether those may be kept

    def __len__(self) -> int:
        return len(self.grids[0])

    def sample_indices(self, count: int) -> Tensor:
        """Which canvases make a batch of ``count``, drawn with replacement: int64, this process's
        part of them."""
        index = torch.randint(len(self), (count,), generator=self.generator)
        return self.adversary.processes.shard(index)

    def sample_canvases(self, count: int, like: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Codes (B, rows, w) of a batch, a grid a level, with as many rows as ``like`` has."""
        return self._cut(self.sample_indices(count), like)

    def sample_inputs(self, count: int, like: Sequence[Tensor] | None = None) -> Tensor:
        """What the adversary is shown of a batch, (B, C, H, W), with as many rows as ``like``."""
        index = self.sample_indices(count)
        whole = like is None or [g.shape[1] for g in like] == [g.shape[1] for g in self.grids]
        inputs = self._all_inputs() if whole else None
        return self.adversary.inputs(self._cut(index, like)) if inputs is None else inputs[index]

    def _cut(self, index: Tensor, like: Sequence[Tensor] | None) -> list[Tensor]:
        like = self.grids if like is None else like
        return [grid[index, : same.shape[1]] for grid, same in zip(self.grids, like, strict=True)]

    def _all_inputs(self) -> Tensor | None:
        """What the adversary is shown of all canvases; None where that is too much to keep."""
        if self._fits is None:
            one = self.adversary.inputs([grid[:1] for grid in self.grids])
            size = one.nbytes * len(self)
            if size <= self.memory:
                self._inputs = self.adversary.inputs(self.grids, batch=64)
            elif one.device.type == "cpu" and size <= MAPPED_BYTES:
                self._inputs = self._mapped(one, size)
            self._fits = self._inputs is not None
        return self._inputs

    def _mapped(self, one: Tensor, size: int) -> Tensor | None:
        """All inputs in a memory map, ``size`` bytes, each like ``one``; None without room."""
        if shutil.disk_usage(tempfile.gettempdir()).free < 2 * size:
            return None
        try:
            with tempfile.TemporaryFile() as file:
                # Written, not stored through the map: a full disk then is an error, not a crash.
                for part in zip(*(grid.split(64) for grid in self.grids), strict=True):
                    file.write(self.adversary.inputs(part).contiguous().numpy().data)
                file.flush()
                shape, dtype = (len(self), *one.shape[1:]), one.numpy().dtype
                return torch.from_numpy(np.memmap(file, dtype, mode="c", shape=shape))
        except OSError:
            return None


def discriminator_sizes(bundle: Bundle, input: str, hidden: int = 16) -> PatchGANConfig:
    """Sizes of a new discriminator of a bundle's images, or of the vectors of all levels' codes.

    Args:
        bundle: what it is to judge.
        input: what it is to see, ``image`` or ``codes``.
        hidden: number of channels of the first convolution over an image; as in the paper the map
            of scores is 4x4, whatever the image's size.

    Raises:
        ValueError: if the input is neither, or it is ``codes`` and the codec has no vectors.
    """
    if input == "image":
        strides = (bundle.image_size // 4).bit_length() - 1  # they leave 4x4 patches
        return PatchGANConfig(hidden=hidden, layers=max(0, strides))
    codes = [torch.zeros(1, h, w, dtype=torch.int64) for h, w in bundle.layout.levels]
    with torch.no_grad():
        channels = represent(bundle.vqvae, codes, input).shape[1]
    return PatchGANConfig(
        channels, hidden=32, layers=2, plain_layers=1, dropout=0.1, global_head=True
    )
