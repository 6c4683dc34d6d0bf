"""The critic learns before the policy does."""

from __future__ import annotations

from typing import Any

from agents.sb3.callbacks.episodes import EpisodeCallback
from ral_env.ranges import check_ranges


class ValueWarmup(EpisodeCallback):
    """Let only the critic learn from the first rollouts: a policy that follows an ignorant critic
    is pushed about by noise.

    Args:
        rollouts: Number of rollouts that only the critic learns from, counted over all training
            with this callback.
        epochs: Passes over each of these rollouts (A2C makes one, always): with the prior frozen,
            none is too many for it.

    Raises:
        ValueError: if rollouts is negative or epochs less than 1.
    """

    remembered = ("_rollouts_done",)

    def __init__(self, rollouts: int = 5, epochs: int = 20, verbose: int = 0):
        super().__init__(verbose)
        self.rollouts = rollouts
        self.epochs = epochs
        check_ranges(self, rollouts="[0, inf)", epochs="[1, inf)")
        self._rollouts_done = 0
        self._settings: dict[str, Any] = {}  # of the algorithm, to be restored

    def _on_rollout_start(self) -> None:
        """Freezes the prior, or lets it learn again."""
        super()._on_rollout_start()
        if self._rollouts_done < self.rollouts:
            self._freeze()
        else:
            self._unfreeze()

    def _on_rollout_end(self) -> None:
        """Counts the rollout."""
        self._rollouts_done += 1

    def _on_training_end(self) -> None:
        """Lets the prior learn again."""
        self._unfreeze()

    def _freeze(self) -> None:
        """Let only the critic learn, in ``epochs`` passes."""
        if self._settings:
            return
        # TRPO wants a gradient of the policy: it gets one, and no step along it.
        settings = {"n_epochs": self.epochs, "n_critic_updates": self.epochs}
        settings["line_search_max_iter"] = 0
        for name, value in settings.items():
            if hasattr(self.model, name):
                self._settings[name] = getattr(self.model, name)
                setattr(self.model, name, value)
        self._policy.freeze_prior("line_search_max_iter" not in self._settings)

    def _unfreeze(self) -> None:
        """Let the prior learn, with the algorithm's settings as they were."""
        for name, value in self._settings.items():
            setattr(self.model, name, value)
        self._settings = {}
        self._policy.freeze_prior(False)
