"""Settings of REINFORCE."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from agents.training.discriminator import DiscriminatorTraining
from ral_env.nets import PatchGANConfig
from ral_env.ranges import SEED, check_ranges


@dataclass(frozen=True)
class Config:
    """Settings of the loop. Defaults are the paper's.

    Args:
        env: Id of the environment.
        bundle: Name or path of a bundle that replaces the environment's.
        reward: Reward of an episode: ``single`` (Eq. 6), ``intermediate`` (section 4.2), or
            ``rowwise``.
        reward_source: What pays: the ``discriminator``, or a control arm, ``constant``, ``random``
            or ``shuffled``.
        reward_fn: What pays in place of the discriminator, as ``package.module:function``; see
            :mod:`ral_env.envs.reward_fn`. No discriminator learns then: its updates, their warm-up
            and the gate are 0, and ``auc`` tells what the bundle's makes of the canvases.
        start: How episodes start; ``partial`` is the paper's partial generation (section 4.3).
        levels: Whose priors learn: ``both`` is all levels in the same iteration; ``top`` and
            ``bottom`` (all but the top) leave the others as they are.
        iterations: Number of rollouts that the policy learns from.
        seconds: Time after which training stops, if that comes before the iterations.
        canvases: Number of canvases per rollout, over all processes together.
        group: Number of canvases that start from the same real rows.
        learning_rate: Learning rate of the policy's Adam.
        final_rate: Share of the learning rate that is left at the end; it falls linearly.
        betas: Decay rates of the two moments of the policy's Adam.
        gamma: Discount of the return (Eq. 3).
        discriminator_warmup: Number of discriminator updates before the first policy update.
        discriminator_updates: Number of discriminator updates per iteration.
        fake_pool: Number of the policy's last rollouts that a discriminator update takes its fakes
            from; 0 samples fresh ones for each update, as the paper does.
        discriminator_input: What the discriminator sees: ``image``, or ``codes`` for codebook
            vectors.
        discriminator_net: Sizes of a new discriminator; null goes on from the bundle's.
        normaliser: What scores are divided by: ``batch``, the largest of each batch of reals and
            fakes, or ``running``, a moving average of that.
        discriminator: How the discriminator learns.
        baseline: What is subtracted from returns: ``none``; ``running-mean``, the mean of the
            rollouts before; ``leave-one-out``, the mean of the rollout's other canvases (RLOO:
            Ahmadian et al. 2024, arXiv 2402.14740); ``group``, the mean of the canvases that
            started alike (GRPO: Shao et al. 2024, arXiv 2402.03300).
        standardise: Whether advantages are divided by their standard deviation over the rollout, or
            over each group.
        kl_loss_coef: Weight of KL(policy || MLE prior), nats per code, on the states that the
            policy comes to. Its gradient is estimated by half the squared log-ratio (J. Schulman,
            "Approximating KL Divergence", 2020).
        ent_coef: Weight of the policy's entropy on those states, nats per code (Williams & Peng
            1991).
        mle_coef: Weight of a maximum-likelihood term on real codes (nats per code).
        epochs: Number of policy updates per rollout. With several, ratios are clipped (PPO:
            Schulman et al. 2017, arXiv 1707.06347).
        clip: How far a ratio may go from 1 before it is clipped.
        ema: Decay of the running average of the policy, which is what is returned; 0 is none.
        gate_auc: Lowest AUC at which the policy is updated: the discriminator's on fakes that it
            has not trained on and on held-out reals, mean of the last 20 iterations.
        guard_every: Number of iterations between looks of a guard at the split to tune on: it keeps
            the averaged policy of least Fréchet distance there, which is what the run returns. 0 is
            no guard: the last one is returned.
        guard_nll: Largest forward NLL that such a policy may have, times the prior's.
        guard_patience: Number of looks without a better one after which the run ends; 0 never ends
            it.
        step_by_step: Whether episodes are played code by code through ``step`` instead of
            ``complete``.
        device: Where all networks run.
        checkpoint_every: Number of iterations between checkpoints.
        seed: Seed of everything.
    """

    env: str = "RALFaces32-v0"
    bundle: str | None = None
    reward: Literal["single", "intermediate", "rowwise"] = "single"
    reward_source: Literal["discriminator", "constant", "random", "shuffled"] = "discriminator"
    reward_fn: str | None = None
    start: Literal["full", "continue", "scratch", "partial"] = "partial"
    levels: Literal["both", "top", "bottom"] = "both"
    iterations: int = 1000
    seconds: float | None = None
    canvases: int = 16
    group: int = 1
    learning_rate: float = 4e-6
    final_rate: float = 1.0
    betas: tuple[float, float] = (0.5, 0.999)
    gamma: float = 0.99
    discriminator_warmup: int = 100
    discriminator_updates: int = 5
    fake_pool: int = 0
    discriminator_input: Literal["image", "codes"] = "image"
    discriminator_net: PatchGANConfig | None = field(
        default_factory=lambda: PatchGANConfig(layers=3)
    )
    normaliser: Literal["batch", "running"] = "batch"
    discriminator: DiscriminatorTraining = field(default_factory=DiscriminatorTraining)
    baseline: Literal["none", "running-mean", "leave-one-out", "group"] = "none"
    standardise: bool = False
    kl_loss_coef: float = 0.0
    ent_coef: float = 0.0
    mle_coef: float = 0.0
    epochs: int = 1
    clip: float = 0.2
    ema: float = 0.0
    gate_auc: float = 0.0
    guard_every: int = 0
    guard_nll: float = 1.01
    guard_patience: int = 10
    step_by_step: bool = False
    device: str = "cpu"
    checkpoint_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            iterations="[0, inf)",
            seconds="[0, inf)",
            canvases="[1, inf)",
            group="[1, inf)",
            learning_rate="(0, inf)",
            final_rate="[0, inf)",
            betas="[0, 1)",
            gamma="[0, 1]",
            discriminator_warmup="[0, inf)",
            discriminator_updates="[0, inf)",
            fake_pool="[0, inf)",
            kl_loss_coef="[0, inf)",
            ent_coef="[0, inf)",
            mle_coef="[0, inf)",
            epochs="[1, inf)",
            clip="(0, inf)",
            ema="[0, 1)",
            gate_auc="[0, 1]",
            guard_every="[0, inf)",
            guard_nll="(0, inf)",
            guard_patience="[0, inf)",
            checkpoint_every="[1, inf)",
            seed=SEED,
        )
        if self.reward_fn is not None:
            for name in ("discriminator_warmup", "discriminator_updates", "gate_auc"):
                object.__setattr__(self, name, type(getattr(self, name))(0))
        if self.baseline == "leave-one-out" and self.canvases < 2:
            raise ValueError("baseline='leave-one-out' needs canvases of at least 2, got 1")
        if self.baseline == "group" and self.group < 2:
            raise ValueError(
                f"baseline='group' needs canvases that start alike: group={self.group}, expected 2 "
                "or more (with start='full' all do: group may be all canvases)"
            )
