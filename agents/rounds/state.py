"""What is learnt in rounds, and everything that decides how it goes on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agents.rounds.config import Config
from agents.training.command import load_bundle
from agents.training.discriminator import Adversary, Canvases, check_shift, discriminator_sizes
from agents.training.levels import LEARNING, check_levels
from agents.training.processes import Processes
from ral_env import bundle as bundles
from ral_env.nets import PatchGAN, backends, joint
from ral_env.reward import NORMALISERS

Grids = Sequence[Tensor]  # codes, int64 (N, h, w), a grid a level, top first
MEASURED = 1000  # canvases that a round's figures are measured on, at most


class TrainState:
    """The policies, the adversary and the random numbers of a run, as they are between rounds.

    Both optimisers begin anew with each round, and each round with the averages that the last one
    left. So these and the random numbers are all that the next round depends on:

    - ``generator``: which reals and fakes make a batch of the discriminator's, which canvases one
      of the policy's, and the permutation of shuffled scores;
    - ``noise``: the canvases that are drawn;
    - torch's global generator: augmentation and dropout.

    Attributes:
        policies: one a level, top first, in eval mode and without gradient.
        adversary: the discriminator, which is the running average of its last round.
        real: the training split's canvases.
        held_out: the first :data:`MEASURED` of the split to tune on, which nothing is trained on.
        levels: which of the levels learn.
        iteration: how many rounds are done.
    """

    def __init__(self, config: Config, bundle: bundles.Bundle | None = None):
        self.config = config
        processes = Processes(config.device)
        if processes.count > 1:
            raise ValueError(
                f"{processes.count} processes were started, expected one: rounds are not shared"
            )
        self.processes, self.device = processes, processes.device
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.noise = torch.Generator(self.device).manual_seed(config.seed)
        self.bundle = load_bundle(config.env, config.bundle) if bundle is None else bundle
        self.layout = self.bundle.layout
        check_levels(config.levels, self.bundle)
        check_shift(config.discriminator, self.bundle, config.discriminator_input)
        self.levels = LEARNING[config.levels]
        _check_priors(self.bundle.priors)
        self.policies: Any = self.frozen(nn.ModuleList(self.bundle.priors))
        net, scale = self._discriminator()
        self.codec = copy.deepcopy(self.bundle.vqvae).to(self.device)
        self.adversary = Adversary(
            net.to(self.device).eval(),
            config.discriminator,
            codec=self.codec,
            input=config.discriminator_input,
            normaliser=NORMALISERS["batch"](scale),
            processes=processes,
        )
        self.real, self.held_out = (
            self.canvases(self.layout.as_grids(codes))
            for codes in (
                self.bundle.split("train"),
                self.bundle.split(self.bundle.tuning_split)[:MEASURED],
            )
        )
        self.iteration = 0

    def frozen(self, policies: nn.Module) -> Any:
        """A copy that does not learn, on the run's device, in eval mode."""
        return copy.deepcopy(policies).to(self.device).eval().requires_grad_(False)

    def log_probs(self, policies: Any, grids: Grids) -> list[Tensor]:
        """Log-probs of all codes of every cell of the levels that learn, (B, h, w, num_codes)."""
        above = [None, *grids[:-1]]
        levels = range(len(grids))[self.levels]
        return [policies[i].logits(grids[i], above[i]).log_softmax(-1) for i in levels]

    def canvases(self, grids: Grids) -> Canvases:
        """Codes as a set that the adversary is shown batches of."""
        here = [grid.to(self.device) for grid in grids]
        return Canvases(here, self.adversary, self.generator)

    def draw(self, count: int) -> list[Tensor]:
        """Whole canvases that the policies write, int64 (count, h, w) a level."""
        empty = self.layout.empty_grids(count, self.device)
        batch = max(16, 2**15 // self.layout.length)
        return joint.sample(self.policies, empty, generator=self.noise, batch=batch)

    @torch.no_grad()
    def decode(self, grids: Grids) -> Tensor:
        """Images of codes, float32 (N, 3, H, W) in [-1, 1]."""
        return self.codec.decode(grids)

    def _discriminator(self) -> tuple[nn.Module, float]:
        """A new one, or the bundle's, and what its scores are divided by."""
        kind, sizes = self.config.discriminator_input, self.config.discriminator_net
        if sizes is None and kind in self.bundle.discriminator_inputs:
            net, scale = self.bundle.discriminator_for(kind)
            return copy.deepcopy(net), scale
        return PatchGAN(sizes or discriminator_sizes(self.bundle, kind)), 1.0

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint keeps by ``state_dict``, by name."""
        return {
            "policies": self.policies,
            "discriminator": self.adversary.net,
            "normaliser": self.adversary.normaliser,
        }

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All else that the next round depends on, but torch's global random numbers."""
        common = {
            "backend": backends.chosen(self.policies),
            "generator": self.generator.get_state(),
            "noise": self.noise.get_state(),
        }
        return common, {}

    def load_state(self, common: dict[str, Any], of_this_process: dict[str, Any] | None) -> None:
        """Take over what :meth:`state` gave."""
        if "backend" in common:  # earlier checkpoints do not say which
            backends.go_on_with(self.policies, common["backend"])
        self.generator.set_state(common["generator"])
        self.noise.set_state(common["noise"])


def _check_priors(priors: Sequence[Any]) -> None:
    for level, prior in enumerate(priors):
        if not hasattr(prior, "logits"):
            raise ValueError(
                f"the prior of level {level}, a {type(prior).__name__}, has no logits(codes, "
                "condition) -> (B, h, w, num_codes), which the exact KL needs: add it"
            )
