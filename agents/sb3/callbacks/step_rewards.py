"""Credit each code with what it earned, and hold the policy near a reference."""

from __future__ import annotations

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import VecNormalize, unwrap_vec_wrapper

from agents.sb3.callbacks.episodes import Episode, EpisodeCallback
from agents.sb3.checks import check
from agents.sb3.observations import raise_written
from agents.sb3.policy import PixelCNNPolicy
from ral_env import migrations
from ral_env.ranges import check_ranges

REFERENCE_BATCH = 16  # canvases that the reference evaluates together


class StepRewards(EpisodeCallback):
    """Credit each code with what it earned, which is known when its canvas is finished.

    The environment pays an episode's sum in its last step; with ``reward="intermediate"`` the
    final info says which step earned what. At the end of a rollout its rewards are replaced by
    that, and returns and advantages are computed anew. Place it before other callbacks that read
    them.

    With ``kl_coef`` each code's reward is less by kl_coef * (log pi - log pi_reference), in nats
    (Ziegler et al. 2019, arXiv 1909.08593, with kl_coef their beta): summed over a canvas the
    penalty estimates kl_coef times the divergence from the reference. Logs
    ``rollout/kl_to_reference``, nats per canvas.

    Args:
        kl_coef: Weight of the penalty, 0 or more.
        reference: Policy that the penalty holds this one near. None is a copy of the policy as it
            is when training starts.

    Raises:
        ValueError: if kl_coef is negative, rollouts are not whole episodes, or VecNormalize would
            scale other rewards than these.
    """

    @migrations.old_keywords("sb3")
    def __init__(
        self, kl_coef: float = 0.0, reference: PixelCNNPolicy | None = None, verbose: int = 0
    ):
        super().__init__(verbose)
        self.kl_coef = kl_coef
        self.reference = reference
        check_ranges(self, kl_coef="[0, inf)")

    def _init_callback(self) -> None:
        """Refuses rollouts and rewards that cannot be replaced; makes the reference."""
        super()._init_callback()
        check(self.model, whole_episodes=True)
        normalised = unwrap_vec_wrapper(self.training_env, VecNormalize)
        if normalised is not None and normalised.norm_reward:
            raise ValueError(
                "VecNormalize(norm_reward=True) scales rewards that StepRewards replaces, "
                "expected norm_reward=False: scores are normalised already"
            )
        if self.kl_coef and self.reference is None:
            self.reference = self._policy.frozen_copy()

    def _on_rollout_end(self) -> None:
        """Replaces the rollout's rewards, returns and advantages."""
        buffer: RolloutBuffer = self.locals["rollout_buffer"]
        self._credit(buffer)
        if self.kl_coef:
            self._penalise(buffer)
        buffer.compute_returns_and_advantage(self.locals["values"], self.locals["dones"])

    def _credit(self, buffer: RolloutBuffer) -> None:
        """Replace the rewards of the rollout by what each of its codes earned."""
        credited = np.zeros(buffer.rewards.shape, bool)
        for episode in self.episodes:
            if episode.steps.start >= 0:
                buffer.rewards[episode.steps, episode.env] = episode.step_rewards
                credited[episode.steps, episode.env] = True
        if not credited.all():
            raise ValueError(
                f"{int((~credited).sum())} of {credited.size} steps belong to episodes that are "
                f"not whole in the rollout of n_steps={buffer.buffer_size}, expected a multiple of "
                "the episode's length, begun with it"
            )

    def _penalise(self, buffer: RolloutBuffer) -> None:
        """Subtract from each code's reward what it departs from the reference."""
        total = 0.0
        for first in range(0, len(self.episodes), REFERENCE_BATCH):
            episodes = self.episodes[first : first + REFERENCE_BATCH]
            references = self._reference_log_probs(episodes)
            for episode, reference in zip(episodes, references, strict=True):
                log_ratio = buffer.log_probs[episode.steps, episode.env] - reference
                buffer.rewards[episode.steps, episode.env] -= self.kl_coef * log_ratio
                total += float(log_ratio.sum())
        self.logger.record("rollout/kl_to_reference", total / len(self.episodes))

    def _reference_log_probs(self, episodes: list[Episode]) -> list[np.ndarray]:
        """Log-probs of the codes that each episode wrote, under the reference: (steps,), nats."""
        assert self.reference is not None
        layout, device = self.reference.layout, self.reference.device
        written = np.stack([episode.start for episode in episodes]) == layout.empty
        canvases = np.stack([episode.canvas for episode in episodes]).astype(np.int64)
        observations = torch.from_numpy(raise_written(canvases, written, layout.num_codes))
        codes = torch.from_numpy(canvases[written])
        with torch.no_grad():
            _, log_prob, _ = self.reference.evaluate_actions(
                observations.to(device), codes.to(device)
            )
        return np.split(log_prob.cpu().numpy(), written.sum(1).cumsum()[:-1])
