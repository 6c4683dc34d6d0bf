"""Settings of a run with one of Stable-Baselines3's algorithms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from agents.training.discriminator import DiscriminatorTraining
from ral_env.ranges import COUNT, SEED, check_ranges, check_values

# Of the further arguments, the numbers that break a run without a word, or after hours.
RANGES = {
    "n_steps": COUNT, "batch_size": COUNT, "n_epochs": COUNT, "learning_rate": "(0, inf)",
    "gamma": "[0, 1]", "gae_lambda": "[0, 1]", "clip_range": "(0, inf)",
    "clip_range_vf": "(0, inf)", "ent_coef": "(-inf, inf)", "vf_coef": "[0, inf)",
    "max_grad_norm": "(0, inf)", "target_kl": "(0, inf)", "buffer_size": COUNT,
    "learning_starts": "[0, inf)", "tau": "[0, 1]", "target_update_interval": COUNT,
    "exploration_fraction": "(0, 1]", "exploration_initial_eps": "[0, 1]",
    "exploration_final_eps": "[0, 1]",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Settings of a run. What they leave open, :func:`agents.sb3.defaults` decides.

    Args:
        env: Id of the environment.
        bundle: Name or path of another bundle than the one that belongs to the id.
        reward: What is paid: ``single``, the mean of the finished canvas's scores, with its last
            code; ``intermediate``, each code's score, credited to that code where the policy is a
            prior; ``rowwise``, each row's scores as soon as it ends.
        reward_source: Where scores come from: ``discriminator``, or a control arm: ``constant``,
            ``random``, ``shuffled``.
        reward_fn: What pays in place of the discriminator, as ``package.module:function``; see
            :mod:`ral_env.envs.reward_fn`. No discriminator learns then.
        canvases: Number of canvases that are written side by side. A rollout is one episode of
            each.
        rollouts: Number of rollouts; of dqn, as many steps as these have.
        learning_rate: Learning rate of the policy. None is the default of the algorithm here.
        kl_coef: Weight of the reward's penalty on the divergence from the MLE prior, 0 or more
            (policies that are priors only). Rewards are scores summed over a canvas: more than 2
            holds the policy back, less lets it exploit them.
        value_warmup: Number of first rollouts from which only the critic learns (policies that are
            priors only).
        max_nats: Training stops, and the last good policy is restored, when the forward NLL of
            held-out codes has risen by more than this, in nats per canvas (policies that are
            priors only).
        discriminator_updates: Number of discriminator updates per rollout; 0 leaves the bundle's
            discriminator as it is.
        discriminator_warmup: Number of discriminator updates before the first rollout.
        discriminator: Loss and optimiser of the discriminator.
        settings: Further arguments of the algorithm, as JSON.
        checkpoint_every: Number of rollouts between checkpoints.
        device: Device that the policy is on, such as ``cpu`` or ``cuda``.
        seed: Seed of all random numbers.

    Raises:
        ValueError: if a number is out of its range.
    """

    env: str = "RALFaces32-v0"
    bundle: str | None = None
    reward: Literal["single", "intermediate", "rowwise"] = "intermediate"
    reward_source: Literal["discriminator", "constant", "random", "shuffled"] = "discriminator"
    reward_fn: str | None = None
    canvases: int = 64
    rollouts: int = 100
    learning_rate: float | None = None
    kl_coef: float = 2.0
    value_warmup: int = 5
    max_nats: float = 3.0
    discriminator_updates: int = 3
    discriminator_warmup: int = 50
    discriminator: DiscriminatorTraining = field(
        default_factory=lambda: DiscriminatorTraining(
            loss="logistic", learning_rate=1e-3, r1=0.1, shift=1, drop=0.05
        )
    )
    settings: dict[str, Any] = field(default_factory=dict)
    checkpoint_every: int = 10
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            canvases="[2, inf)",
            rollouts="[1, inf)",
            learning_rate="(0, inf)",
            kl_coef="[0, inf)",
            value_warmup="[0, inf)",
            max_nats="(0, inf]",
            discriminator_updates="[0, inf)",
            discriminator_warmup="[0, inf)",
            checkpoint_every=COUNT,
            seed=SEED,
        )
        check_values(self.settings, **{k: v for k, v in RANGES.items() if k in self.settings})
