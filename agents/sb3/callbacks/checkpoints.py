"""A run of SB3's that was cut goes on: checkpoints where rollouts begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from agents.sb3.callbacks.discriminator import DiscriminatorCallback
from agents.sb3.callbacks.episodes import EpisodeCallback
from agents.sb3.vec_env import vector_env
from agents.training import finite
from agents.training.checkpoint import Checkpoint
from agents.training.processes import Processes
from agents.training.signals import StopSignals
from ral_env.nets import backends

Make = Callable[[Mapping[str, Any]], Checkpoint]


class Checkpoints(BaseCallback):
    """Save what training depends on where rollouts begin, and go on from there.

    Of on-policy algorithms on episodes that start from empty canvases a run that goes on ends, on
    the CPU, as one that was never cut. DQN goes on with an empty replay buffer and new episodes.
    Place it before all other callbacks. A signal stops training with a checkpoint where the next
    rollout begins; weights that are not finite stop it with an error.

    Args:
        make: Makes the checkpoint of the parts that it is given.
        callbacks: The other callbacks of the training.
        every: Number of rollouts from one checkpoint to the next.
        rollout: Number of steps in a rollout, over all canvases.

    Attributes:
        signals: What may stop the training; it has to be entered around it.
        total: Number of steps that the training has made.
    """

    def __init__(self, make: Make, callbacks: Sequence[BaseCallback], every: int, rollout: int):
        super().__init__()
        self.make = make
        self.callbacks = [each for each in callbacks if isinstance(each, EpisodeCallback)]
        self.every = every
        self.rollout = rollout
        self.signals = StopSignals()
        self.total = 0
        self._next = 0  # rollouts before the next checkpoint
        self._is_stopped = False

    def _on_training_start(self) -> None:
        """Takes over what a checkpoint holds, before the discriminator is warmed up."""
        model: Any = self.model
        self._envs = vector_env(self.training_env).envs
        parts = {name: attrgetter(name)(model) for name in _parts_of(model)}
        for callback in self.callbacks:
            if isinstance(callback, DiscriminatorCallback):
                parts |= callback.adversary.parts
        self.checkpoint = self.make(parts)
        self._hook = model.policy.optimizer.register_step_post_hook(lambda *_: self._check())
        if self.checkpoint.exists():
            self._load(self.checkpoint.restore()[0])

    def _check(self) -> None:
        """Refuse weights that are not finite."""
        rate = self.model.learning_rate
        with finite.naming_last_good(self.checkpoint.file):
            finite.check_weights(self.model.policy, "the policy's", f"lower the rate ({rate})")

    def _on_rollout_start(self) -> None:
        """Saves, if it is time for it or a signal came."""
        if self._is_stopped:
            return
        self._check()
        self.total = self.num_timesteps = self.model.num_timesteps
        self._is_stopped = self.signals.came(Processes())
        if self.total // self.rollout >= self._next or self._is_stopped:
            self.save()
            self._next = self.total // self.rollout + self.every

    def _on_step(self) -> bool:
        """False stops training, in the first step of a rollout that is not learned from."""
        return not self._is_stopped

    def _on_training_end(self) -> None:
        """Saves what the whole training has come to."""
        self._hook.remove()
        if self._is_stopped:
            self.model.num_timesteps, self.model._last_obs = self.total, None
        else:
            self.total = max(self.total, self.model.num_timesteps)
            self.save(is_over=True)

    def save(self, is_over: bool = False) -> None:
        """Write a checkpoint.

        Args:
            is_over: whether nothing is left to train.
        """
        model: Any = self.model
        random = np.random.get_state(legacy=False)
        assert isinstance(random, dict)
        stored = {
            "is_over": is_over,
            "timesteps": self.total,
            "updates": getattr(model, "_n_updates", 0),
            "backend": backends.chosen(model.policy),
            "numpy": random | {"state": _plain(random["state"])},
            "envs": [rng.bit_generator.state for rng in self._envs.rngs],
            "episodes": [_floats(episode) for episode in model.ep_info_buffer],
            "logged": _floats(model.logger.name_to_value),
            "callbacks": {type(each).__name__: each.state() for each in self.callbacks},
        }
        self.checkpoint.save(stored)

    def _load(self, stored: Mapping[str, Any]) -> None:
        """Take over what :meth:`save` stored."""
        model: Any = self.model
        self.total = stored["timesteps"]
        # SB3 trains until it has made all steps.
        model.num_timesteps = max(self.total, model._total_timesteps * stored["is_over"])
        model._n_updates = stored["updates"]
        backends.go_on_with(model.policy, stored.get("backend", "eager"))  # once the only one
        random = dict(stored["numpy"])
        key = random["state"]["key"].numpy().astype(np.uint32)
        np.random.set_state(random | {"state": {**random["state"], "key": key}})
        for rng, state in zip(self._envs.rngs, stored["envs"], strict=True):
            rng.bit_generator.state = state
        model.ep_info_buffer.extend(stored["episodes"])
        for name, value in stored["logged"].items():
            model.logger.record(name, value)
        for callback in self.callbacks:
            callback.load_state(stored["callbacks"][type(callback).__name__])
        self._next = self.total // self.rollout + self.every


def _parts_of(model: BaseAlgorithm) -> list[str]:
    """Names of the model's attributes that have weights or an optimiser's state."""
    return model._get_torch_save_params()[0]


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """A generator's state without NumPy's arrays, which a checkpoint does not hold."""
    return {"key": torch.from_numpy(state["key"].astype(np.int64)), "pos": int(state["pos"])}


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among some figures."""
    return {k: float(v) for k, v in values.items() if isinstance(v, int | float | np.number)}
