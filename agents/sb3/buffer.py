"""A rollout buffer of whole episodes: one pass of the priors evaluates all codes of a canvas."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import Tensor

from agents.sb3.observations import raise_written


class EpisodeBuffer(RolloutBuffer):
    """``rollout_buffer_class`` for PPO, A2C and TRPO with :class:`PixelCNNPolicy`.

    The updates are SB3's; only minibatches are whole episodes in place of single transitions, each
    shown as one finished canvas that tells which codes the episode wrote (see
    :mod:`agents.sb3.observations`). So a minibatch costs one pass an episode, not one a code. Of
    observations only the episodes' starts are stored.

    Arguments are SB3's. ``buffer_size`` (the algorithm's ``n_steps``) must be a multiple of the
    episode's length, and every episode as long.

    Raises:
        ValueError: from :meth:`add`, if episodes do not fit the buffer.
    """

    def reset(self) -> None:
        """Empties the buffer."""
        self.length = 0  # of an episode; the first start tells
        super().reset()
        self.observations = np.zeros((0, self.n_envs, *self.obs_shape), np.int64)

    def add(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: Tensor,
        log_prob: Tensor,
    ) -> None:
        """Adds a step of all environments, as SB3 has it; refuses one that breaks an episode."""
        starts = np.asarray(episode_start, bool)
        expected = self.pos == 0 or self.pos % self.length == 0
        if (starts != expected).any():
            raise ValueError(
                f"step {self.pos} of the rollout {'begins' if starts.any() else 'does not begin'} "
                "an episode, but an EpisodeBuffer expects episodes of one length, the first begun "
                'with the rollout: use start="full" or make_vec_env(..., rows=...), and after a '
                "rollout that was broken off go on with learn(..., reset_num_timesteps=True), "
                "which resets the environments"
            )
        if self.pos == 0:
            self._begin(obs)
        if expected:
            self._check_lengths(obs)
            self.observations[self.pos // self.length] = obs
        self.actions[self.pos] = np.asarray(action).reshape(self.n_envs, self.action_dim)
        self.rewards[self.pos] = reward
        self.episode_starts[self.pos] = episode_start
        self.values[self.pos] = value.detach().cpu().numpy().flatten()
        self.log_probs[self.pos] = log_prob.detach().cpu().numpy()
        self.pos += 1
        self.full = self.pos == self.buffer_size

    @property
    def _num_codes(self) -> int:
        """Number of different codes; it is EMPTY's code, too."""
        return int(self.action_space.n)  # type: ignore[attr-defined]

    def _begin(self, obs: np.ndarray) -> None:
        """Learn the episodes' length from their starts, and make room for all starts."""
        self.length = int((obs[0] == self._num_codes).sum())
        if not self.length or self.buffer_size % self.length:
            raise ValueError(
                f"n_steps={self.buffer_size} is no multiple of the {self.length} codes that an "
                f"episode writes, expected n_steps={self.length} or a multiple of it"
            )
        rounds = self.buffer_size // self.length
        self.observations = np.zeros((rounds, self.n_envs, *self.obs_shape), np.int64)

    def _check_lengths(self, obs: np.ndarray) -> None:
        """Refuse starts of episodes of another length."""
        lengths = (obs == self._num_codes).sum(1)
        if (lengths != self.length).any():
            raise ValueError(
                f"episodes write {sorted({self.length, *lengths.tolist()})} codes, expected one "
                'length: use start="full", or make_vec_env(..., rows=...), or SB3\'s own '
                "RolloutBuffer"
            )

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Minibatches of whole episodes, in random order.

        Args:
            batch_size: transitions in a minibatch, a multiple of the episode's length; None is all.

        Raises:
            ValueError: if it is not.
        """
        assert self.full, "the buffer is not full"
        episodes = self.buffer_size * self.n_envs // self.length
        batch_size = episodes * self.length if batch_size is None else batch_size
        if batch_size < 1 or batch_size % self.length:
            raise ValueError(
                f"batch_size={batch_size} is no multiple of the {self.length} codes of an episode, "
                f"expected {self.length} times the episodes of a minibatch"
            )
        order = self._shuffle(episodes)
        if not self.generator_ready:
            self._flatten()
        count = batch_size // self.length
        for first in range(0, episodes, count):
            yield self._get_samples(order[first : first + count])

    def _shuffle(self, episodes: int) -> np.ndarray:
        """The order in which episodes come: int64 (episodes,), by SB3's random numbers, numpy's."""
        return np.random.permutation(episodes)

    def _flatten(self) -> None:
        """Steps of an episode side by side, as SB3 lays them: canvas after canvas."""
        for name in ("observations", "actions", "values", "log_probs", "advantages", "returns"):
            setattr(self, name, self.swap_and_flatten(getattr(self, name)))
        # Codes are written into EMPTY cells in raster order.
        written = self.observations == self._num_codes
        self.observations[written] = self.actions[:, 0]
        self.observations = raise_written(self.observations, written, self._num_codes)
        self.generator_ready = True

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> RolloutBufferSamples:
        """A minibatch of the episodes of these numbers, their steps one after the other."""

        def steps(array: np.ndarray) -> torch.Tensor:
            return self.to_torch(array.reshape(-1, self.length)[batch_inds].flatten())

        return RolloutBufferSamples(
            self.to_torch(self.observations[batch_inds]),
            steps(self.actions).float()[:, None],  # SB3's dtype
            steps(self.values),
            steps(self.log_probs),
            steps(self.advantages),
            steps(self.returns),
        )
