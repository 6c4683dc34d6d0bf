"""Settings of learning in rounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from agents.training.discriminator import DiscriminatorTraining
from ral_env.nets import PatchGANConfig
from ral_env.ranges import SEED, check_ranges


def _training() -> DiscriminatorTraining:
    """A density ratio, with a gradient penalty and augmentation: few reals are soon known."""
    return DiscriminatorTraining("logistic", learning_rate=1e-3, r1=0.1, shift=1, drop=0.05)


@dataclass(frozen=True)
class Config:
    """Settings of the rounds. Defaults are for priors of 0.1 million parameters and 64 codes.

    Args:
        env: Id of the environment.
        bundle: Name or path of a bundle that replaces the environment's.
        levels: Whose priors learn: ``both`` is all levels; ``top`` and ``bottom`` (all but the top)
            leave the others as they are.
        reward_source: What weights the canvases: the ``discriminator``, or a control arm:
            ``shuffled`` gives each canvas the score of another, ``constant`` gives all the same.
        rounds: Number of rounds. A run that goes on may have more: no round depends on how many
            follow.
        seconds: Time after which no further round begins, if that comes before the rounds.
        canvases: Number of canvases that the policy draws in a round.
        discriminator_canvases: Number of those that the discriminator learns from. The others,
            which it has never been shown, are weighted by its scores, and the policy learns from
            them.
        signed: Whether a canvas's log-prob is weighted by w - 1, so that what is rarer among reals
            is made less likely, or by its importance weight w alone.
        elites: Share of the canvases, those of the highest scores, that are weighted, all alike,
            while the others weigh nothing: the cross-entropy method (Rubinstein 1999). 0 weights
            all by exp(score).
        clip_quantile: Quantile of the importance weights that larger ones are cut to.
        proposal_floor: What is added to abs(w - 1) before canvases are drawn in proportion to it,
            so that those of weight 1 are drawn, too: they hold the policy where it is.
        updates: Number of policy updates per round.
        batch: Number of canvases per policy update, and of real ones for the likelihood term.
        learning_rate: Learning rate of the policy's Adam, which begins anew each round.
        final_rate: Share of the learning rate that is left at the end of a round; it falls
            linearly.
        betas: Decay rates of the two moments of that Adam.
        kl_coef: Weight of KL(the policy that drew || policy), nats per code, summed exactly over
            all codes of each cell.
        mle_coef: Weight of a maximum-likelihood term on real codes, nats per code.
        ema: Decay of the running average of the policy. The next round begins with the average, and
            it is what is returned.
        discriminator_warmup: Number of discriminator updates before the first round.
        discriminator_updates: Number of discriminator updates per round.
        discriminator_batch: Number of reals, and of fakes, per discriminator update.
        discriminator_ema: Decay of the running average of the discriminator, which is what scores.
        discriminator_input: What the discriminator sees: ``image``, or ``codes`` for codebook
            vectors.
        discriminator_net: Sizes of a new discriminator; null goes on from the bundle's, or begins
            one that fits the bundle where that has none for this input.
        discriminator: How the discriminator learns. Its loss must be ``logistic``, as its score is
            taken for a log density ratio.
        device: Where all networks run.
        seed: Seed of everything.
    """

    env: str = "RALDigits-v0"
    bundle: str | None = None
    levels: Literal["both", "top", "bottom"] = "both"
    reward_source: Literal["discriminator", "shuffled", "constant"] = "discriminator"
    rounds: int = 6
    seconds: float | None = None
    canvases: int = 40_000
    discriminator_canvases: int = 8_000
    signed: bool = True
    elites: float = 0.0
    clip_quantile: float = 0.995
    proposal_floor: float = 0.3
    updates: int = 220
    batch: int = 64
    learning_rate: float = 1e-3
    final_rate: float = 0.2
    betas: tuple[float, float] = (0.9, 0.999)
    kl_coef: float = 0.6
    mle_coef: float = 0.15
    ema: float = 0.99
    discriminator_warmup: int = 2_000
    discriminator_updates: int = 750
    discriminator_batch: int = 64
    discriminator_ema: float = 0.99
    discriminator_input: Literal["image", "codes"] = "codes"
    discriminator_net: PatchGANConfig | None = None
    discriminator: DiscriminatorTraining = field(default_factory=_training)
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            rounds="[0, inf)",
            seconds="[0, inf)",
            elites="[0, 1]",
            canvases="[2, inf)",
            discriminator_canvases="[1, inf)",
            clip_quantile="(0, 1]",
            proposal_floor="(0, inf)",
            updates="[1, inf)",
            batch="[1, inf)",
            learning_rate="(0, inf)",
            final_rate="[0, inf)",
            betas="[0, 1)",
            kl_coef="[0, inf)",
            mle_coef="[0, inf)",
            ema="[0, 1)",
            discriminator_warmup="[0, inf)",
            discriminator_updates="[0, inf)",
            discriminator_batch="[1, inf)",
            discriminator_ema="[0, 1)",
            seed=SEED,
        )
        if self.discriminator_canvases >= self.canvases:
            raise ValueError(
                f"discriminator_canvases={self.discriminator_canvases} of "
                f"canvases={self.canvases}: expected fewer, so that some are left to learn from"
            )
        if self.discriminator.loss != "logistic":
            raise ValueError(
                f"discriminator.loss={self.discriminator.loss!r}, expected 'logistic': canvases "
                "are weighted by exp(score), so the score must be a log density ratio"
            )
