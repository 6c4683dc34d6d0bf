"""Stop before the policy forgets what the prior knew."""

from __future__ import annotations

import warnings

import numpy as np
from torch import Tensor

from agents.evaluation import metrics
from agents.sb3.callbacks.episodes import EpisodeCallback
from agents.sb3.vec_env import vector_env
from ral_env.nets import joint
from ral_env.ranges import check_ranges


class CollapseGuard(EpisodeCallback):
    """Stop when the policy has lost what the prior knew, and go back to where it had not.

    At the end of each rollout, before it is learnt from, the policy that collected it is measured:
    ``guard/nll``, nats per canvas of held-out real codes (the forward NLL: a lost mode shows here);
    ``guard/diversity``, the mean share of written cells in which two of the rollout's canvases
    differ; ``guard/entropy``, the rollout's mean -log pi, nats per code. If nll exceeds its first
    value by more than ``max_nats``, or diversity falls below ``min_diversity`` times its first,
    the parameters of the last rollout that passed are restored and training stops, with a warning;
    ``stopped`` says why. After the last update nll alone is measured, with the same consequence.
    The optimiser's state is not restored. The first values are those of the first rollout that
    this callback sees, and stay so if training goes on.

    Args:
        max_nats: How many nats per canvas nll may grow by, more than 0.
        min_diversity: Share of the first diversity that must be left, 0 to 1.
        count: Number of held-out canvases that nll is measured on, at most; the first of the
            validation split.

    Attributes:
        stopped: why training was stopped, or None.

    Raises:
        ValueError: if one of them is out of its range.
    """

    remembered = ("_first", "_good_state")

    def __init__(
        self, max_nats: float, min_diversity: float = 0.5, count: int = 256, verbose: int = 0
    ):
        super().__init__(verbose)
        self.max_nats = max_nats
        self.min_diversity = min_diversity
        self.count = count
        check_ranges(self, max_nats="(0, inf]", min_diversity="[0, 1]", count="[1, inf)")
        self.stopped: str | None = None
        self._first: tuple[float, float] | None = None  # nll, diversity
        self._good_state: dict[str, Tensor] = {}  # parameters of the last rollout that passed

    def _init_callback(self) -> None:
        """Loads held-out canvases."""
        super()._init_callback()
        bundle = vector_env(self.training_env).envs.bundle
        held_out = bundle.layout.as_grids(bundle.split("validation")[: self.count])
        self._held_out = [grid.to(self._policy.device) for grid in held_out]
        self.stopped = None

    def _on_rollout_start(self) -> None:
        """Begins to note the rollout's log-probs."""
        super()._on_rollout_start()
        self._log_probs: list[float] = []

    def _on_step(self) -> bool:
        """Measures the policy at a rollout's last step; False stops training."""
        super()._on_step()
        self._log_probs.append(self.locals["log_probs"].mean().item())
        if not self._rollout_is_full:
            return True
        nll, diversity = self._nll(), self._diversity()
        self.logger.record("guard/nll", nll)
        self.logger.record("guard/diversity", diversity)
        self.logger.record("guard/entropy", -float(np.mean(self._log_probs)))
        self._first = self._first or (nll, diversity)
        if (reason := self._collapse(nll, diversity)) is None:
            state = self._policy.state_dict()
            self._good_state = {name: value.clone() for name, value in state.items()}
            return True
        self._restore(reason)
        return False

    def _on_training_end(self) -> None:
        """Measures what the last update has made of the policy."""
        if self.stopped is not None:
            # The rollout was broken off: training that goes on begins with new episodes. Not
            # earlier, since callbacks after this one still read the observation of its last step.
            self.model._last_obs = None
        if self.stopped is None and self._first is not None:
            reason = self._collapse(self._nll(), self._first[1])
            if reason is not None:
                self._restore(reason)

    def _nll(self) -> float:
        """Of held-out canvases, nats per canvas."""
        return -joint.total_log_prob(self._policy.priors, self._held_out).mean().item()

    def _diversity(self) -> float:
        """Of the rollout's canvases, where they were written."""
        if len(self.episodes) < 2:
            return 1.0
        canvases = np.stack([episode.canvas for episode in self.episodes])
        starts = np.stack([episode.start for episode in self.episodes])
        return metrics.diversity(canvases, starts == self._policy.layout.empty)

    def _collapse(self, nll: float, diversity: float) -> str | None:
        """In which way the policy has collapsed, in words; None if it has not."""
        assert self._first is not None
        first_nll, first_diversity = self._first
        if not nll <= first_nll + self.max_nats:  # not finite counts too
            return (
                f"held-out codes cost {nll:.2f} nats a canvas, at first {first_nll:.2f}, at most "
                f"{self.max_nats} more are allowed"
            )
        if diversity < self.min_diversity * first_diversity:
            return (
                f"canvases differ in {diversity:.3f} of their cells, at first {first_diversity:.3f}"
                f", at least {self.min_diversity} times that is expected"
            )
        return None

    def _restore(self, reason: str) -> None:
        """Go back to the last good parameters, and say why."""
        self.stopped = reason
        if self._good_state:
            self._policy.load_state_dict(self._good_state)
        warnings.warn(
            f"the policy collapses: {reason}. The last good parameters are restored and training "
            "stops; lower the learning rate, or give StepRewards(kl_coef=...)",
            stacklevel=2,
        )
