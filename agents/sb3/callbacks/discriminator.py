"""The discriminator learns beside the policy."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.sb3.callbacks.episodes import EpisodeCallback
from agents.sb3.vec_env import vector_env
from agents.training.discriminator import Adversary, Canvases, DiscriminatorTraining
from ral_env.nets import joint
from ral_env.ranges import check_ranges
from ral_env.reward import NORMALISERS

Grids = list[Tensor]  # codes (B, h, w), int64, one grid a level, top first


class DiscriminatorCallback(EpisodeCallback):
    """Train the environment's discriminator beside the policy.

    A copy of it learns from reconstructed real codes against the canvases of each rollout, then
    pays the next one, with its scale normalised anew. Before the first rollout it is warmed up on
    canvases sampled from the policy. Logs its losses and ``discriminator/auc``, how well it tells
    this rollout's canvases, before it learns from them, from held-out real ones; 0.5 is blind.

    Args:
        training: How the discriminator learns; the defaults are the paper's.
        updates: Number of discriminator updates per rollout.
        warmup: Number of discriminator updates before the first rollout.
        batch: Number of real canvases, and of the policy's, in an update.
        net: A new discriminator to start from; give ``discriminator_input`` with it. None goes on
            from the environment's.
        discriminator_input: What the discriminator is shown: ``image``, or ``codes`` for codebook
            vectors. None keeps the environment's.
        normaliser: How scores are brought into [-1, 1]: ``batch``, by the largest of the last
            batch, or ``running``, by a moving average of that.
        seed: Seed of the draw of canvases.

    Attributes:
        adversary: the discriminator as it learns, from the beginning of training on.

    Raises:
        ValueError: with off-policy algorithms, whose replay buffer would pay what an earlier
            discriminator thought, if a ``reward_fn`` pays, or if a setting is unknown or out of
            its range.
    """

    remembered = ("_is_warm",)

    def __init__(
        self,
        training: DiscriminatorTraining | None = None,
        updates: int = 5,
        warmup: int = 100,
        *,
        batch: int = 64,
        net: nn.Module | None = None,
        discriminator_input: str | None = None,
        normaliser: str = "batch",
        seed: int = 0,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        self.training = training or DiscriminatorTraining()
        self.updates = updates
        self.warmup = warmup
        self.batch = batch
        self.net = net
        self.discriminator_input = discriminator_input
        self.normaliser = normaliser
        check_ranges(self, updates="[0, inf)", warmup="[0, inf)", batch="[1, inf)")
        if normaliser not in NORMALISERS:
            raise ValueError(f"normaliser={normaliser!r}, expected one of {tuple(NORMALISERS)}")
        self.generator = torch.Generator().manual_seed(seed)
        self._is_set_up = self._is_warm = False

    def _init_callback(self) -> None:
        """Copies the discriminator, the first time; training that goes on keeps it."""
        super()._init_callback()
        if self._is_set_up:
            return
        envs = vector_env(self.training_env).envs
        if envs.reward_fn is not None:
            raise ValueError(
                f"reward_fn {envs.reward_fn.name} pays, so that a discriminator which learns "
                "changes nothing: leave DiscriminatorCallback out"
            )
        self._envs, self._layout, self._device = envs, envs.layout, envs.device
        self.adversary = Adversary(
            copy.deepcopy(self.net or envs.discriminator).to(self._device).eval(),
            self.training,
            codec=copy.deepcopy(envs.bundle.vqvae).to(self._device),
            input=self.discriminator_input or envs.discriminator_input,
            normaliser=NORMALISERS[self.normaliser](envs.reward_scale),
        )
        self._real, self._held_out = (
            Canvases(
                [grid.to(self._device) for grid in self._layout.as_grids(envs.bundle.split(split))],
                self.adversary,
                self.generator,
                memory=0,  # decoded with each update, in batches as large as the policy's canvases
            )
            for split in ("train", "validation")
        )
        self._is_set_up = True

    def _on_training_start(self) -> None:
        """Warms the discriminator up, the first time."""
        super()._on_training_start()
        if self._is_warm or not self.warmup:
            return
        self._is_warm = True
        priors = self._policy.priors
        noise = torch.Generator(self._policy.device).manual_seed(self.generator.initial_seed())
        fake: Grids = []
        for _ in range(self.warmup):
            fake = joint.draw(priors, self.batch, noise)
            fake = [grid.to(self._device) for grid in fake]
            self._update(fake)
        self._pay(fake)

    def _on_rollout_end(self) -> None:
        """Measures the discriminator on the rollout's canvases, trains it, and lets it pay."""
        fakes = self._rollout_canvases()
        if not fakes:
            return
        fake = max(fakes.values(), key=lambda grids: len(grids[0]))
        self._measure(fake)
        heights, losses = sorted(fakes), {}
        for _ in range(self.updates):
            fake = fakes[heights[self._draw(len(heights), 1)[0]]]
            index = self._draw(len(fake[0]), self.batch)
            losses = self._update([grid[index] for grid in fake])
        for name, value in losses.items():
            self.logger.record(f"discriminator/{name}", value)
        self._pay(fake)
        self.logger.record("discriminator/reward_scale", self._envs.reward_scale)

    def state(self) -> dict[str, Any]:
        """The generator beside the rest; the adversary's parts are the checkpoint's own."""
        return super().state() | {"generator": self.generator.get_state()}

    def load_state(self, stored: Mapping[str, Any]) -> None:
        """Lets the discriminator, as it is now, pay."""
        super().load_state(stored)
        self.generator.set_state(stored["generator"])
        self.adversary.score_in(self._envs)

    def _rollout_canvases(self) -> dict[int, Grids]:
        """The rollout's canvases by their height, rows of the coarsest level."""
        canvases: dict[int, list[np.ndarray]] = {}
        for episode in self.episodes:
            rows = int(self._layout.heights(episode.canvas))
            canvases.setdefault(rows, []).append(episode.canvas)
        found = {}
        for rows, same_height in canvases.items():
            codes = torch.from_numpy(np.stack(same_height).astype(np.int64)).to(self._device)
            found[rows] = self._layout.unflatten(codes, rows)
        return found

    def _measure(self, fake: Grids) -> None:
        """Log how well the discriminator tells canvases from held-out real ones."""
        real = self._held_out.sample_inputs(max(len(fake[0]), self.batch), like=fake)
        auc = self.adversary.held_out_auc(real, self.adversary.inputs(fake))
        self.logger.record("discriminator/auc", auc)

    def _update(self, fake: Grids) -> dict[str, float]:
        """One update on canvases of one height and as many real ones; its named losses."""
        real = self._real.sample_inputs(len(fake[0]), like=fake)
        return self.adversary.update(real, self.adversary.inputs(fake))

    def _pay(self, fake: Grids) -> None:
        """Let the environment score with the discriminator as it is now, normalised anew."""
        real = self._real.sample_inputs(len(fake[0]), like=fake)
        scores = self.adversary.score_maps(real, self.adversary.inputs(fake))
        self.adversary.normaliser.update(*scores)
        self.adversary.score_in(self._envs)

    def _draw(self, below: int, count: int) -> list[int]:
        """Numbers below a bound, with replacement."""
        return torch.randint(below, (count,), generator=self.generator).tolist()
