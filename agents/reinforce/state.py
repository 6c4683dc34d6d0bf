"""What is learnt, and everything that decides how it goes on."""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from agents.evaluation.guard import Guard
from agents.reinforce.config import Config
from agents.training.discriminator import Adversary, Canvases, check_shift
from agents.training.levels import LEARNING, check_levels
from agents.training.processes import Processes
from ral_env import bundle as bundles
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.nets import PatchGAN, backends
from ral_env.reward import NORMALISERS
from ral_env.tasks import expect_ours

Grids = list[Tensor]  # codes, int64 (B, rows, w), a grid a level, top first


@dataclass(frozen=True)
class Fakes:
    """Canvases that the policy wrote, as the discriminator is shown them.

    Args:
        grids: int64 codes (B, rows, w), a grid a level.
        inputs: what the discriminator is shown of them, (B, C, H, W): decoded once.
    """

    grids: Grids
    inputs: Tensor


@dataclass(frozen=True)
class Rollout:
    """A batch of episodes that the policy has written, before they are paid.

    Args:
        start: the observations that the episodes began with, int16 (B, length).
        canvas: what they ended with, int16 (B, length).
        fakes: their codes, of those rows that the episodes have.
        sampled: which of those cells the policy wrote, bool (B, cells).
    """

    start: np.ndarray
    canvas: np.ndarray
    fakes: Fakes
    sampled: Tensor


class TrainState:
    """The policies, their averages, the adversary, optimisers and random numbers of a run.

    Random numbers come from four places, and a run is repeated exactly because each is drawn from
    in a fixed order:

    - ``starts`` (numpy): how the episodes of a rollout start, once a rollout;
    - ``generator``: for a rollout, which real rows it continues; for a discriminator update, first
      which rollout of the pool, then which real canvases; for scoring, which held-out canvases; for
      a policy update with ``mle_coef``, which real canvases, once an epoch;
    - ``noise``: the samples, level by level and row by row;
    - torch's global generator: augmentation and gradient penalty of a discriminator update, dropout
      of the maximum-likelihood term.

    The environments' own generators draw what ``reset`` and the control arms ask for. All processes
    draw alike, for the whole batch, and each takes its part of it.

    Attributes:
        policies: one a level, top first, in eval mode: without dropout, the policy that learns is
            the one that acts.
        reference: the priors as they came.
        averages: the running averages of the policies, which is what a run returns.
        learning: those of the policies that learn.
        guard: what looks at the averages now and then, and keeps the best; None without one.
        pool: the last rollouts' canvases, which the discriminator learns from.
        aucs: the discriminator's AUC in the last iterations.
        mean_return: moving average of the returns so far; None before the first rollout.
        warmup_updates: how many of the discriminator's updates before the first iteration are done.
        iteration: how many are done.
    """

    def __init__(self, config: Config, bundle: bundles.Bundle | None = None):
        self.config = config
        self.processes = Processes(config.device)
        self.canvases = _share(config, self.processes)
        device = self.processes.device
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.noise = torch.Generator(device).manual_seed(config.seed)
        self.starts = np.random.default_rng(config.seed)

        self.envs = self._make_envs(bundle)
        self.bundle, self.layout = self.envs.bundle, self.envs.layout
        check_levels(config.levels, self.bundle)
        vqvae = copy.deepcopy(self.bundle.vqvae).to(device)

        policies = nn.ModuleList(copy.deepcopy(prior) for prior in self.bundle.priors)
        self.policies: Any = policies.to(device).eval().requires_grad_(False)
        self.reference: Any = copy.deepcopy(self.policies)
        self.averages: Any = copy.deepcopy(self.policies)
        self.learning = nn.ModuleList(self.policies[LEARNING[config.levels]]).requires_grad_()
        self.optimizer = torch.optim.Adam(
            self.learning.parameters(), lr=config.learning_rate, betas=config.betas
        )
        own = config.reward_fn is not None  # the bundle's discriminator then only watches
        check_shift(config.discriminator, self.bundle, config.discriminator_input)
        self.adversary = Adversary(
            self._discriminator().to(device),
            config.discriminator,
            codec=vqvae,
            input=self.bundle.discriminator_input if own else config.discriminator_input,
            normaliser=NORMALISERS[config.normaliser](self.bundle.reward_scale),
            processes=self.processes,
        )
        self.processes.broadcast(self.adversary.net)
        self.adversary.score_in(self.envs)  # episodes have as many rows as it needs from the first
        self.real, self.held_out = (
            Canvases(
                [grid.to(device) for grid in self.layout.as_grids(self.bundle.split(split))],
                self.adversary,
                self.generator,
            )
            for split in ("train", "validation")
        )

        self.guard: Guard | None = None
        if config.guard_every:
            self.guard = Guard(
                self.bundle,
                self.averages,
                config.guard_nll,
                config.guard_patience,
                seed=config.seed,
            )

        self.pool: deque[Fakes] = deque(maxlen=max(1, config.fake_pool))
        self.aucs: deque[float] = deque(maxlen=20)
        self.mean_return: float | None = None
        self.warmup_updates = 0
        self.iteration = 0

    def _make_envs(self, bundle: bundles.Bundle | None) -> LatentCanvasVectorEnv:
        """The environments of this process's canvases."""
        config = self.config
        expect_ours(config.env)
        chosen = config.bundle if bundle is None else bundle
        arguments: dict[str, Any] = {} if chosen is None else {"bundle": chosen}
        envs = gym.make_vec(
            config.env,
            num_envs=self.canvases,
            reward=config.reward,
            reward_source=config.reward_source,
            reward_fn=config.reward_fn,
            autoreset_mode="disabled",
            device=self.processes.device,
            **arguments,
        )
        envs.reset(seed=config.seed + self.processes.rank * self.canvases)
        found = cast(LatentCanvasVectorEnv, envs.unwrapped)
        found.scorer.drop_oracles()  # nothing here reads what they say
        return found

    def _discriminator(self) -> nn.Module:
        """A new one, or the bundle's.

        Raises:
            ValueError: if the bundle's sees something else.
        """
        config = self.config
        if config.reward_fn is not None:
            return copy.deepcopy(self.bundle.discriminator)
        if config.discriminator_net is not None:
            return PatchGAN(config.discriminator_net)
        if self.bundle.discriminator_input != config.discriminator_input:
            raise ValueError(
                f"the bundle's discriminator sees {self.bundle.discriminator_input!r}, but "
                f"discriminator_input={config.discriminator_input!r}: give discriminator_net to "
                "start a new one"
            )
        return copy.deepcopy(self.bundle.discriminator)

    def trainable_mask(self, grids: Grids) -> Tensor:
        """Which cells of a canvas are of a level that learns: bool (cells,)."""
        levels = range(len(grids))[LEARNING[self.config.levels]]
        return torch.cat(
            [
                torch.full((grid[0].numel(),), level in levels, device=self.processes.device)
                for level, grid in enumerate(grids)
            ]
        )

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint keeps by ``state_dict``, by name."""
        return {
            "policies": self.policies,
            "averages": self.averages,
            "optimizer": self.optimizer,
            **self.adversary.parts,
        }

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All else that the next iteration depends on: common to all processes, and this one's."""
        common = {
            "aucs": list(self.aucs),
            "mean_return": self.mean_return,
            "warmup_updates": self.warmup_updates,
            "guard": self.guard and self.guard.state_dict(),
            "backend": backends.chosen(self.policies),
            "generator": self.generator.get_state(),
            "noise": self.noise.get_state(),
            "starts": self.starts.bit_generator.state,
        }
        of_this_process = {
            "pool": [[grid.cpu() for grid in fakes.grids] for fakes in self.pool],
            "envs": [rng.bit_generator.state for rng in self.envs.rngs],
        }
        return common, of_this_process

    def load_state(self, common: dict[str, Any], of_this_process: dict[str, Any] | None) -> None:
        """Take over what :meth:`state` gave.

        Raises:
            ValueError: if it was given by another number of processes.
        """
        self.aucs.extend(common["aucs"])
        self.mean_return = common["mean_return"]
        # Checkpoints of earlier versions were written after the warm-up.
        self.warmup_updates = common.get("warmup_updates", self.config.discriminator_warmup)
        for nets in (self.policies, self.averages):
            backends.go_on_with(nets, common.get("backend", "eager"))  # once there was no other
        if self.guard:
            self.guard.load_state_dict(common["guard"])
        self.generator.set_state(common["generator"])
        self.noise.set_state(common["noise"])
        self.starts.bit_generator.state = common["starts"]
        if of_this_process is None or len(of_this_process["envs"]) != self.canvases:
            raise ValueError(
                "the checkpoint was written by another number of processes: start as many again"
            )
        for stored in of_this_process["pool"]:
            self.pool.append(self.fakes([grid.to(self.processes.device) for grid in stored]))
        for rng, state in zip(self.envs.rngs, of_this_process["envs"], strict=True):
            rng.bit_generator.state = state

    def fakes(self, grids: Grids) -> Fakes:
        """These codes and what the discriminator is shown of them."""
        return Fakes(grids, self.adversary.inputs(grids))


def _share(config: Config, processes: Processes) -> int:
    """Canvases of this process."""
    multiple = processes.count * config.group
    if config.canvases % multiple:
        raise ValueError(
            f"canvases={config.canvases} cannot be shared by {processes.count} processes in groups "
            f"of {config.group}: choose a multiple of {multiple}"
        )
    return config.canvases // processes.count
