"""What an environment says of its networks: scores, images, and another discriminator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ral_env.envs.reward_fn import RewardFunction
from ral_env.envs.scorer import Scorer
from ral_env.envs.shapes import Pictures
from ral_env.nets.shapes import ScoreMap


class Scored:
    """Mixin of environments, one canvas or a batch.

    Attributes:
        scorer: the networks at work.
    """

    scorer: Scorer

    @property
    def discriminator(self) -> nn.Module:
        """The net that scores: a copy, which training the bundle's does not change."""
        return self.scorer.discriminator

    @property
    def discriminator_input(self) -> str:
        """What it sees: "image" or "codes" (codebook vectors on the finest grid)."""
        return self.scorer.discriminator_input

    @property
    def reward_fn(self) -> RewardFunction | None:
        """What pays in place of the discriminator; None where that does."""
        return self.scorer.reward_fn

    @property
    def reward_scale(self) -> float:
        """Scores are divided by it, then clamped to [-1, 1]."""
        return self.scorer.reward_scale

    @property
    def min_rows(self) -> int:
        """Fewest rows of a scratch start: what the discriminator can score."""
        return self.scorer.min_rows

    def set_discriminator(
        self, net: nn.Module, reward_scale: float, input: str | None = None
    ) -> None:
        """See :meth:`Scorer.set_discriminator`; ``input`` None keeps what it sees."""
        input = self.discriminator_input if input is None else input
        self.scorer.set_discriminator(net, reward_scale, input)

    def load_discriminator(self, state_dict: Mapping[str, Tensor], reward_scale: float) -> None:
        """See :meth:`Scorer.load_discriminator`."""
        self.scorer.load_discriminator(state_dict, reward_scale)

    def score(self, codes: Any) -> ScoreMap:
        """What finished canvases are paid by, (B, 1, h', w'); see :meth:`Scorer.score`."""
        return self.scorer.score(codes)

    def images(self, codes: Any) -> Pictures:
        """Images uint8 (B, 3, H, W) of finished canvases; see :meth:`Scorer.images`."""
        return self.scorer.images(codes)
