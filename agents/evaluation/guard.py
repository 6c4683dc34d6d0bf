"""A guard against over-training: a policy is looked at on the split to tune on, the best is kept.

A reward can be hacked: the score of a discriminator rises while canvases get worse. Likelihood and
the Fréchet distance on real canvases that nothing is trained on see that.
"""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import nn

from agents.evaluation.evaluator import Evaluator, TemperedPrior
from agents.evaluation.metrics import frechet_distance
from agents.training.files import Row
from ral_env.bundle import Bundle


class Guard:
    """Keeps the weights of least FD among those that give up little likelihood.

    Looks draw no random numbers but their own: a run with a guard learns what it would without.

    Args:
        bundle: Its split to tune on is looked at, in the space of its first feature net.
        policies: One a level; the first look is at these, and they are the best so far.
        bound: Largest forward NLL that a best may have, times that of the first look.
        patience: Number of looks without a new best after which the guard is over; 0 never is.
        samples: Number of samples of each look.
        seed: Seed of the samples.

    Attributes:
        best: The weights that are kept, a module like the policies.
        figures: ``tuning_fd`` and ``tuning_nll``, nats per canvas, of the best.
        since: Number of looks since the best.

    Raises:
        ValueError: If the bundle has no feature net.
    """

    def __init__(
        self,
        bundle: Bundle,
        policies: nn.Module,
        bound: float = 1.01,
        patience: int = 10,
        samples: int = 1000,
        seed: int = 0,
    ):
        if not bundle.feature_nets:
            raise ValueError(
                f"{bundle!r} has no feature net, by which a guard judges: leave the guard out "
                "(guard_every=0), or choose a bundle that has one"
            )
        self.evaluator = Evaluator(bundle, split=bundle.tuning_split)
        self.space = next(iter(bundle.feature_nets))
        self.patience, self.samples, self.seed = patience, samples, seed
        self.best: Any = copy.deepcopy(policies).cpu().requires_grad_(False)
        self.figures: Row = self._measure(self.best)
        self.limit = bound * self.figures["tuning_nll"]
        self.since = 0

    def _measure(self, policies: Any) -> Row:
        prior = TemperedPrior(list(policies))
        grids = self.evaluator.sample(prior, self.samples, self.seed)
        features = self.evaluator.features(grids)[self.space]
        real = self.evaluator.held_out_features[self.space]
        return {
            "tuning_fd": frechet_distance(real, features),
            "tuning_nll": self.evaluator.forward_nll(prior),
        }

    def look(self, policies: nn.Module) -> Row:
        """Measure policies, and keep them if they are the best.

        Returns:
            ``tuning_fd``, ``tuning_nll`` and ``tuning_best``: 1 if they are kept, else 0.
        """
        there = copy.deepcopy(policies).cpu()
        found = self._measure(there)
        is_best = (
            found["tuning_nll"] <= self.limit and found["tuning_fd"] < self.figures["tuning_fd"]
        )
        self.since = 0 if is_best else self.since + 1
        if is_best:
            self.best.load_state_dict(there.state_dict())
            self.figures = found
        return found | {"tuning_best": float(is_best)}

    @property
    def is_over(self) -> bool:
        """Whether so many looks have found nothing better that the training should end."""
        return self.since >= (self.patience or math.inf)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        return {
            "best": self.best.state_dict(),
            "figures": self.figures,
            "limit": self.limit,
            "since": self.since,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.best.load_state_dict(state["best"])
        self.figures, self.limit = dict(state["figures"]), state["limit"]
        self.since = state["since"]
