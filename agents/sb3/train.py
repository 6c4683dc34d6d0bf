"""``ral train --algo ppo|a2c|trpo|maskable-ppo|dqn``: Stable-Baselines3's algorithms, set up right.

PPO, A2C and TRPO fine-tune the bundle's prior. MaskablePPO and DQN learn SB3's own policies from
nothing: what swapping the algorithm alone leads to.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from tqdm import tqdm

from agents.evaluation.evaluator import results
from agents.sb3.callbacks import (
    CollapseGuard,
    DiscriminatorCallback,
    SampleGrids,
    StepRewards,
    ValueWarmup,
)
from agents.sb3.checks import defaults
from agents.sb3.features import CodeEmbeddingExtractor
from agents.sb3.policy import PixelCNNPolicy
from agents.sb3.vec_env import LatentCanvasVecEnv, make_vec_env, vector_env
from agents.training.discriminator import DiscriminatorTraining
from agents.training.run_folder import RunFolder
from ral_env.bundle import Bundle
from ral_env.envs.vector import LatentCanvasVectorEnv


@dataclass(frozen=True)
class Config:
    """Settings of a run; what is not here is :func:`agents.sb3.defaults`'s.

    Args:
        env: id of the environment.
        bundle: another bundle than the id's own.
        reward: ``single``, ``intermediate`` or ``rowwise``; each code is credited with what it
            earned where the policy is a prior.
        reward_source: ``discriminator``, or a control arm: ``constant``, ``random``, ``shuffled``.
        canvases: episodes that are played side by side: a rollout.
        rollouts: how many; for dqn, as many steps.
        learning_rate: of the policy; none is the algorithm's default here.
        kl: weight of the divergence from the MLE prior (of priors only). Rewards are scores summed
            over a canvas: more than 2 holds the policy back, less lets it exploit them.
        value_warmup: first rollouts in which only the critic learns (of priors only).
        max_nats: stop and restore when forward NLL on held-out codes has risen by more than this,
            nats per canvas (of priors only).
        discriminator_updates: updates a rollout; 0 leaves the bundle's as it is.
        discriminator_warmup: updates before the first rollout.
        discriminator: how it learns.
        settings: further arguments of the algorithm, as JSON.
        device: where the policy runs.
        seed: of everything.
    """

    env: str = "RALFaces32-v0"
    bundle: str | None = None
    reward: Literal["single", "intermediate", "rowwise"] = "intermediate"
    reward_source: Literal["discriminator", "constant", "random", "shuffled"] = "discriminator"
    canvases: int = 64
    rollouts: int = 100
    learning_rate: float | None = None
    kl: float = 2.0
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
    device: str = "cpu"
    seed: int = 0


class _Progress(BaseCallback):
    """A bar with the time left; interrupts end the run, not the program."""

    def __init__(self, total: int):
        super().__init__()
        self.bar = tqdm(total=total, desc="ral", unit="code", unit_scale=True)

    def _on_step(self) -> bool:
        self.bar.update(self.num_timesteps - self.bar.n)
        if episodes := self.model.ep_info_buffer:
            self.bar.set_postfix_str(f"reward {np.mean([e['r'] for e in episodes]):+.3f}", False)
        return True

    def _on_training_end(self) -> None:
        self.bar.close()


def build(algo: str, config: Config) -> tuple[Any, list[BaseCallback]]:
    """The model on its environments, and the callbacks to train it with."""
    chosen: dict[str, Any] = {} if config.bundle is None else {"bundle": config.bundle}
    envs = make_vec_env(
        config.env, config.canvases, seed=config.seed, reward=config.reward,
        reward_source=config.reward_source, device=config.device, **chosen,
    )  # fmt: skip
    more: dict[str, Any] = dict(config.settings)
    if config.learning_rate is not None:
        more["learning_rate"] = config.learning_rate
    more |= {"seed": config.seed, "device": config.device}
    # The discriminator that scores may be anything; here it goes on from the bundle's.
    judge = DiscriminatorCallback(
        config.discriminator, config.discriminator_updates, config.discriminator_warmup,
        seed=config.seed,
    )  # fmt: skip
    if algo in ("ppo", "a2c", "trpo"):
        if algo == "trpo":
            from sb3_contrib import TRPO as algorithm  # an extra
        else:
            algorithm = {"ppo": PPO, "a2c": A2C}[algo]
        model = algorithm(PixelCNNPolicy, envs, **defaults(algorithm, envs, **more))
        callbacks: list[BaseCallback] = [
            StepRewards(config.kl),
            ValueWarmup(config.value_warmup),
            CollapseGuard(config.max_nats),
        ]
        if config.discriminator_updates:
            callbacks.append(judge)
        return model, [*callbacks, SampleGrids(every=10)]
    length = vector_env(envs).episode_length
    assert length is not None  # full starts
    policy = {"features_extractor_class": CodeEmbeddingExtractor}
    if algo == "dqn":
        # A replay buffer pays what an earlier discriminator thought: the bundle's stays as it is.
        more = {"train_freq": 4, "learning_starts": 1000, "buffer_size": 100_000} | more
        model = DQN("MlpPolicy", envs, gamma=1.0, policy_kwargs=policy, **more)
        return model, []
    from sb3_contrib import MaskablePPO  # an extra

    more = {"n_steps": length, "batch_size": 256} | more
    return MaskablePPO("MlpPolicy", envs, gamma=1.0, policy_kwargs=policy, **more), []


def written(model: Any, bundle: Bundle, count: int) -> list[torch.Tensor]:
    """Whole canvases that a model writes, sampled, not argmax: int64 (count, h, w) a level."""
    envs = LatentCanvasVecEnv(
        LatentCanvasVectorEnv(count, bundle, autoreset_mode="same_step", device=model.device)
    )
    masked = type(model).__name__ == "MaskablePPO"
    obs, infos = envs.reset(), [{}]
    while "final_canvas" not in infos[0]:
        masks = {"action_masks": envs.action_masks()} if masked else {}
        actions, _ = model.predict(obs, deterministic=False, **masks)
        obs, _, _, infos = envs.step(actions)
    return envs.envs.layout.as_grids(np.stack([info["final_canvas"] for info in infos]))


def train(algo: str, config: Config, out: Path | str, progress: bool = True) -> dict[str, Any]:
    """Train, and leave in ``out`` what every run leaves: config.json, progress.csv, TensorBoard
    events, model.zip, metrics.csv and, of a prior, the fine-tuned bundle.

    Returns:
        The row of metrics.csv.

    Raises:
        ValueError: if a setting is bad, or ``out`` holds a run already.
    """
    if config.canvases < 2 or config.rollouts < 1:
        raise ValueError(
            f"canvases={config.canvases}, rollouts={config.rollouts}, expected 2 and 1 or more"
        )
    model, callbacks = build(algo, config)
    run = RunFolder(out, {"algo": algo, **dataclasses.asdict(config)}, kind="sb3")
    model.set_logger(configure(str(out), ["csv", "tensorboard"]))
    envs = vector_env(model.get_env()).envs
    steps = config.rollouts * config.canvases * envs.layout.length
    if progress:
        callbacks = [*callbacks, _Progress(steps)]
    interrupted, start = False, time.perf_counter()
    try:
        model.learn(steps, callback=callbacks, log_interval=1)
    except KeyboardInterrupt:
        interrupted = True
    seconds = time.perf_counter() - start
    model.save(run.path("model.zip"))
    policies = list(model.policy.priors.cpu()) if isinstance(model.policy, PixelCNNPolicy) else []
    grids = None if policies else written(model, envs.bundle, 1000)
    figures = {
        "algo": algo, "env": config.env, "seed": config.seed, "interrupted": interrupted,
        "iterations": model.num_timesteps // (config.canvases * envs.layout.length),
        "canvases": model.num_timesteps // envs.layout.length, "seconds": seconds,
        **results(envs.bundle, policies, config.seed, grids=grids),
    }  # fmt: skip
    model.logger.close()
    run.finish(
        envs.bundle,
        policies,
        figures,
        discriminator=envs.discriminator.cpu(),
        discriminator_input=envs.discriminator_input,
        reward_scale=envs.reward_scale,
    )
    return figures


def main(algo: str, argv: list[str] | None = None) -> int:
    """Train with a Stable-Baselines3 algorithm: ``ral train --env ID --algo ppo``."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=f"ral train --algo {algo}", description=main.__doc__)
    parser.add_argument("--out", default=None, help="folder (default: runs/ENV-ALGO-SEED)")
    parser.add_argument("--threads", type=int, default=1, help="of torch; small nets want one")
    parser.add_class_arguments(Config)
    arguments = parser.parse_args(sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(arguments.threads)
    chosen = parser.instantiate(arguments)
    config = Config(**{f.name: chosen[f.name] for f in dataclasses.fields(Config)})
    out = arguments.out or f"runs/{config.env}-{algo}-{config.seed}"
    figures = train(algo, config, out)
    told = {k: f"{v:.3f}" for k, v in figures.items() if isinstance(v, float)}
    print(", ".join(f"{name} {value}" for name, value in told.items()))
    bundle = f" and {out}/bundle" if (Path(out) / "bundle").exists() else ""
    print(f"wrote {out}/model.zip{bundle}")
    return 130 if figures["interrupted"] else 0
