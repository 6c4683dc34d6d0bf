"""The base of all callbacks here: it notes the episodes that end in a rollout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents.sb3.checks import check
from agents.sb3.policy import PixelCNNPolicy


class Episode(NamedTuple):
    """An episode that ended in this rollout.

    Attributes:
        env: index of the environment that it was played in.
        end: index of its last step in the rollout.
        start: its first observation, (length,).
        canvas: the finished canvas, (length,).
        step_rewards: what each code that it wrote earned, in the order of writing, (steps,).
    """

    env: int
    end: int
    start: np.ndarray
    canvas: np.ndarray
    step_rewards: np.ndarray

    @property
    def steps(self) -> slice:
        """Its steps in the rollout; the slice starts below 0 if it began before the rollout."""
        return slice(self.end + 1 - len(self.step_rewards), self.end + 1)


class EpisodeCallback(BaseCallback):
    """Notes the episodes that end in a rollout of an on-policy algorithm.

    Attributes:
        episodes: those of the rollout that is being collected, in the order in which they ended;
            those whose start was not seen are left out.
        remembered: names of the attributes that a run which goes on takes over.
    """

    remembered: tuple[str, ...] = ()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback: tensors and plain Python values."""
        return {name: getattr(self, name) for name in self.remembered}

    def load_state(self, stored: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave, when training has begun."""
        for name in self.remembered:
            setattr(self, name, stored[name])

    def _init_callback(self) -> None:
        """Refuses algorithms that do not learn on-policy, and settings that silently break."""
        if not isinstance(self.model, OnPolicyAlgorithm):
            raise ValueError(
                f"{type(self).__name__} goes with on-policy algorithms (PPO, A2C, TRPO), got "
                f"{type(self.model).__name__}: a replay buffer pays what an earlier discriminator "
                "thought"
            )
        check(self.model)

    def _on_training_start(self) -> None:
        """Forgets the starts of episodes that an earlier training left unfinished."""
        canvas, count = self.model.observation_space, self.training_env.num_envs
        assert isinstance(canvas, spaces.Box)
        self._starts = np.zeros((count, *canvas.shape), np.int64)
        self._start_is_known = np.zeros(count, bool)

    def _on_rollout_start(self) -> None:
        """Begins a new list of episodes."""
        self.episodes: list[Episode] = []
        self._step = -1

    def _on_step(self) -> bool:
        """Notes the starts that the policy has just been shown, and the episodes that end."""
        self._step += 1
        assert isinstance(self.model, OnPolicyAlgorithm)
        assert isinstance(self.model.action_space, spaces.Discrete)
        begun = np.asarray(self.model._last_episode_starts, bool)
        self._starts[begun] = np.asarray(self.model._last_obs)[begun]
        self._start_is_known |= begun
        empty = self.model.action_space.n
        for i in np.flatnonzero(self.locals["dones"] & self._start_is_known):
            info, start = self.locals["infos"][i], self._starts[i].copy()
            step_rewards = np.asarray(info["step_rewards"])[: (start == empty).sum()]
            self.episodes.append(
                Episode(int(i), self._step, start, info["final_canvas"], step_rewards)
            )
        return True

    @property
    def _rollout_is_full(self) -> bool:
        """Whether this step is the last of its rollout."""
        return self._step + 1 == self.locals["n_rollout_steps"]

    @property
    def _policy(self) -> PixelCNNPolicy:
        """The model's policy.

        Raises:
            ValueError: if it is another.
        """
        policy = self.model.policy
        if not isinstance(policy, PixelCNNPolicy):
            raise ValueError(
                f"the policy is {type(policy).__name__}, but {type(self).__name__} asks for the "
                "probabilities of whole canvases: use PixelCNNPolicy"
            )
        return policy
