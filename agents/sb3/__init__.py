"""Stable-Baselines3 on our environments: priors as policies, whole-episode updates, callbacks.

A run, and its model again::

    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from agents.training.discriminator import DiscriminatorTraining
    from agents.sb3 import (CollapseGuard, DiscriminatorCallback, StepRewards, PixelCNNPolicy,
                            SampleGrids, ValueWarmup, defaults, make_vec_env)

    envs = make_vec_env("RALDigits-v0", 64, seed=0, reward="intermediate")
    model = PPO(PixelCNNPolicy, envs, seed=0, tensorboard_log="runs/ppo", **defaults(PPO, envs))
    model.learn(100 * 64 * 64, callback=[  # 100 rollouts of 64 canvases of 64 codes
        StepRewards(kl_coef=2.0),  # credits each code with what it earned, and anchors the policy
        ValueWarmup(5),  # the critic learns first
        CollapseGuard(max_nats=3.0),  # stops, and restores, when modes are lost
        DiscriminatorCallback(DiscriminatorTraining(loss="logistic", learning_rate=1e-3)),
        SampleGrids(every=10),
    ])
    print(evaluate_policy(model, envs, 64, deterministic=False))  # argmax is one image, always
    model.save("runs/ppo/model")
    model = PPO.load("runs/ppo/model", env=envs)

A2C and sb3-contrib's TRPO take the place of PPO. Other algorithms learn with SB3's own policies:
``policy_kwargs={"features_extractor_class": CodeEmbeddingExtractor}``; MaskablePPO then writes only
codes that real grids hold. Returns are sums of a canvas's scores, so gamma is 1, and n_steps a
multiple of its codes; :func:`check` refuses what would silently break.
"""

from agents.sb3.buffer import EpisodeBuffer
from agents.sb3.callbacks import (
    CollapseGuard,
    DiscriminatorCallback,
    SampleGrids,
    StepRewards,
    ValueWarmup,
)
from agents.sb3.checks import check, defaults
from agents.sb3.features import CodeEmbeddingExtractor
from agents.sb3.policy import InitialPrior, PixelCNNPolicy
from agents.sb3.vec_env import LatentCanvasVecEnv, make_vec_env
from ral_env import migrations

__all__ = [
    "CodeEmbeddingExtractor",
    "CollapseGuard",
    "DiscriminatorCallback",
    "EpisodeBuffer",
    "InitialPrior",
    "LatentCanvasVecEnv",
    "PixelCNNPolicy",
    "SampleGrids",
    "StepRewards",
    "ValueWarmup",
    "check",
    "defaults",
    "make_vec_env",
]

__getattr__ = migrations.old_names(__name__)
