"""Train Ray RLlib's PPO on an environment of this package, from nothing.

Ray pins gymnasium 1.2.2, so it wants an environment of its own (see docs/clients.md):

    python3.11 -m venv rayenv && . rayenv/bin/activate
    pip install . 'ray[rllib]==2.60.0'
    python docs/rllib_train.py --env RALFaces32-v0 --iterations 30
    python docs/rllib_train.py --env RALDigits-v0 --runners 4 --out runs/rllib

It prints a row an iteration: episodes played so far, their mean return (the sum of a canvas's
scores, from -64 to 64 for 64 codes), the policy's entropy in nats per code, seconds. At the end it
saves a checkpoint, which ``Algorithm.from_checkpoint`` loads.

Rewards are ``rowwise``: each row of codes is paid as it ends, which a learner that begins with
nothing needs. RLlib's own networks take codes for magnitudes; the module here embeds them, EMPTY
and OUTSIDE included, as ``agents.sb3.CodeEmbeddingExtractor`` does for Stable-Baselines3.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from agents.sb3.features import CodeEmbeddingExtractor


class CodeModule(TorchRLModule, ValueFunctionAPI):
    """An actor and a critic that share nothing, on embedded codes."""

    def setup(self) -> None:
        """Make the networks; RLlib calls it once."""
        self.actor = CodeEmbeddingExtractor(self.observation_space)
        self.critic = CodeEmbeddingExtractor(self.observation_space)
        self.logits = nn.Linear(self.actor.features_dim, int(self.action_space.n))
        self.value = nn.Linear(self.critic.features_dim, 1)
        nn.init.zeros_(self.logits.weight)  # all codes alike at first

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Canvases (B, length) to logits of the next code (B, num_codes)."""
        return {Columns.ACTION_DIST_INPUTS: self.logits(self.actor(batch[Columns.OBS]))}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Values (B,)."""
        return self.value(self.critic(batch[Columns.OBS])).squeeze(-1)


def configure(
    env: str, runners: int = 0, canvases: int = 64, learning_rate: float = 1e-3, seed: int = 0
) -> PPOConfig:
    """PPO's settings for an id.

    Args:
        runners: processes that play beside the one that learns; 0 plays in that one.
        canvases: played side by side, over all runners together; an iteration is one of each.

    Raises:
        ValueError: if canvases cannot be shared out evenly.
    """
    if runners < 0 or canvases < 1 or canvases % max(1, runners):
        raise ValueError(
            f"runners={runners}, canvases={canvases}, expected 0 or more, and a multiple of it"
        )
    example = gym.make(f"ral_env:{env}")
    length = example.observation_space.shape[0]  # codes of an episode
    example.close()
    return (
        PPOConfig()
        .environment(f"ral_env:{env}", env_config={"reward": "rowwise"})
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=canvases // max(1, runners),
            rollout_fragment_length=length,
            batch_mode="complete_episodes",
        )
        .rl_module(rl_module_spec=RLModuleSpec(module_class=CodeModule))
        .training(
            gamma=1.0,  # a canvas is judged as a whole
            lambda_=0.95,
            lr=learning_rate,
            train_batch_size_per_learner=canvases * length,
            minibatch_size=512,
            num_epochs=4,
            entropy_coeff=0.01,
            use_kl_loss=False,
            vf_clip_param=float("inf"),  # returns are of tens, and RLlib's 10 would cut their loss
            grad_clip=0.5,
        )
        .debugging(seed=seed, log_level="ERROR")
    )


def train(config: PPOConfig, iterations: int, out: Path | str) -> list[dict[str, float]]:
    """Train, print a row an iteration, and leave a checkpoint in ``out``; returns the rows."""
    algorithm, rows, start = config.build_algo(), [], time.perf_counter()
    episodes = 0
    print(f"{'iteration':>9} {'episodes':>8} {'return':>8} {'entropy':>8} {'seconds':>8}")
    for iteration in range(1, iterations + 1):
        result = algorithm.train()
        played, learnt = result["env_runners"], result["learners"]["default_policy"]
        episodes += int(played["num_episodes"])
        row = {
            "iteration": iteration,
            "episodes": episodes,
            "return": float(played["episode_return_mean"]),
            "entropy": float(learnt["entropy"]),
            "seconds": time.perf_counter() - start,
        }
        rows.append(row)
        print(
            f"{iteration:9d} {episodes:8d} {row['return']:8.2f} {row['entropy']:8.3f} "
            f"{row['seconds']:8.1f}",
            flush=True,
        )
    algorithm.save_to_path(str(Path(out).absolute()))
    algorithm.stop()
    return rows


def main() -> None:
    """Parse the arguments, train, and say where the checkpoint is."""
    parser = argparse.ArgumentParser(description="RLlib's PPO on one of our environments")
    parser.add_argument("--env", default="RALFaces32-v0", help="an id; see `ral envs`")
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--runners", type=int, default=0, help="processes that play; 0: this one")
    parser.add_argument("--canvases", type=int, default=64, help="an iteration's, of all runners")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/rllib", help="folder of the checkpoint")
    given = parser.parse_args()
    ray.init(include_dashboard=False, log_to_driver=False)
    config = configure(given.env, given.runners, given.canvases, given.learning_rate, given.seed)
    train(config, given.iterations, given.out)
    ray.shutdown()
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
