"""Training runs with Stable-Baselines3's algorithms, set up right.

PPO, A2C and TRPO fine-tune the bundle's prior. MaskablePPO and DQN learn SB3's own policies from
nothing: what swapping the algorithm alone leads to.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback

from agents.evaluation.evaluator import results
from agents.sb3.callbacks import (
    Checkpoints,
    CollapseGuard,
    DiscriminatorCallback,
    ProgressBar,
    SampleGrids,
    StepRewards,
    ValueWarmup,
)
from agents.sb3.checks import defaults
from agents.sb3.config import Config
from agents.sb3.features import CodeEmbeddingExtractor
from agents.sb3.figures import logger
from agents.sb3.policy import PixelCNNPolicy
from agents.sb3.vec_env import LatentCanvasVecEnv, make_vec_env, vector_env
from agents.training.checkpoint import Checkpoint
from agents.training.discriminator import check_shift
from agents.training.files import read_tensors
from agents.training.processes import Processes
from agents.training.run_folder import RunFolder
from ral_env.bundle import Bundle
from ral_env.envs.options import torch_device
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.files import told, write_bytes

FREE = ("device", "checkpoint_every")  # what a run that goes on may change


def build(algo: str, config: Config) -> tuple[Any, list[BaseCallback]]:
    """The model on its environments, and the callbacks to train it with.

    Args:
        algo: ``ppo``, ``a2c``, ``trpo``, ``maskable-ppo`` or ``dqn``.
    """
    torch_device(config.device)
    bundle: dict[str, Any] = {} if config.bundle is None else {"bundle": config.bundle}
    envs = make_vec_env(
        config.env, config.canvases, seed=config.seed, reward=config.reward,
        reward_source=config.reward_source, reward_fn=config.reward_fn, device=config.device,
        **bundle,
    )  # fmt: skip
    made = vector_env(envs).envs
    check_shift(config.discriminator, made.bundle, made.discriminator_input)
    settings: dict[str, Any] = dict(config.settings)
    if config.learning_rate is not None:
        settings["learning_rate"] = config.learning_rate
    settings |= {"seed": config.seed, "device": config.device}
    if algo in ("ppo", "a2c", "trpo"):
        return _fine_tuned_prior(algo, envs, settings), _callbacks(config)
    return _policy_from_nothing(algo, envs, settings), []


def _fine_tuned_prior(algo: str, envs: Any, settings: dict[str, Any]) -> Any:
    """An algorithm whose policy is the bundle's prior."""
    if algo == "trpo":
        from sb3_contrib import TRPO as algorithm  # an extra
    else:
        algorithm = {"ppo": PPO, "a2c": A2C}[algo]
    _check_names(algorithm, settings)
    return algorithm(PixelCNNPolicy, envs, **defaults(algorithm, envs, **settings))


def _check_names(algorithm: type, settings: Mapping[str, Any]) -> None:
    """Refuse arguments that an algorithm does not have, or that are decided here."""
    decided = {"self", "policy", "env", "_init_setup_model"}
    known = set(inspect.signature(algorithm).parameters) - decided
    if unknown := sorted(set(settings) - known):
        raise ValueError(
            f"settings {unknown}, which {algorithm.__name__} does not take: expected some of "
            f"{sorted(known)}"
        )


def _callbacks(config: Config) -> list[BaseCallback]:
    """What a prior is trained with, in the order in which SB3 calls it."""
    callbacks: list[BaseCallback] = [
        StepRewards(config.kl_coef),
        ValueWarmup(config.value_warmup),
        CollapseGuard(config.max_nats),
    ]
    if config.discriminator_updates and config.reward_fn is None:
        # It goes on from the bundle's discriminator.
        learner = DiscriminatorCallback(
            config.discriminator, config.discriminator_updates, config.discriminator_warmup,
            seed=config.seed,
        )  # fmt: skip
        callbacks.append(learner)
    return [*callbacks, SampleGrids(every=10)]


def _policy_from_nothing(algo: str, envs: Any, settings: dict[str, Any]) -> Any:
    """An algorithm with a policy of SB3's; it learns without callbacks."""
    length = vector_env(envs).episode_length
    assert length is not None  # full starts
    policy = {"features_extractor_class": CodeEmbeddingExtractor}
    if algo == "dqn":
        # A replay buffer pays what an earlier discriminator thought: the bundle's stays as it is.
        algorithm = DQN
        own = {"train_freq": 4, "learning_starts": 1000, "buffer_size": 100_000}
    else:
        from sb3_contrib import MaskablePPO as algorithm  # an extra

        own = {"n_steps": length, "batch_size": 256}
    _check_names(algorithm, settings)
    arguments = {"gamma": 1.0, **own, **settings}
    arguments["policy_kwargs"] = policy | (settings.get("policy_kwargs") or {})
    return algorithm("MlpPolicy", envs, **arguments)


def sample_canvases(model: Any, bundle: Bundle, count: int) -> list[torch.Tensor]:
    """Whole canvases that a model writes, sampled, not argmax.

    Args:
        model: an SB3 algorithm, whatever its policy.
        bundle: of the canvases.
        count: how many are written, side by side.

    Returns:
        Codes, int64 (count, h, w), a grid a level, top first.
    """
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


def train(
    algo: str, config: Config, out: Path | str, progress: bool = True, resume: bool = False
) -> dict[str, Any]:
    """Train, and leave in ``out`` what every run leaves: config.json, progress.csv, TensorBoard
    events, checkpoints, model.zip, metrics.csv and, of a prior, the fine-tuned bundle.

    Ctrl-C, SIGTERM and SIGHUP stop the run where its next rollout begins: a checkpoint, the model
    and the bundle are written, and no metrics.

    Args:
        algo: ``ppo``, ``a2c``, ``trpo``, ``maskable-ppo`` or ``dqn``.
        out: folder of the run.
        progress: whether a progress bar is shown.
        resume: go on with the run in ``out`` from its last checkpoint, see
            :class:`agents.sb3.callbacks.Checkpoints`.

    Returns:
        The row of metrics.csv, and ``interrupted``: the number of the signal that stopped the run,
        or 0.

    Raises:
        ValueError: if a setting is bad, or ``out`` holds a run already, or, to resume, none, or one
            of other settings.
        NotFiniteError: if the policy's weights are not finite; it names the last good checkpoint.
        DiskError: if ``out`` cannot be written to.
    """
    model, callbacks = build(algo, config)
    settings = {"algo": algo, **dataclasses.asdict(config)}
    envs = vector_env(model.get_env()).envs
    asked = settings | {"bundle_digest": envs.bundle.digest}
    same = {"bundle": "bundle_digest"}
    with RunFolder(out, asked, kind="sb3", resume=resume, free=FREE, stands_for=same) as run:
        rollout = config.canvases * envs.layout.length
        fixed = {k: v for k, v in settings.items() if k not in (*FREE, "bundle")}

        def make_checkpoint(parts: Mapping[str, Any]) -> Checkpoint:
            return Checkpoint(run.path("checkpoint.pt"), fixed, dict(parts), Processes(), "sb3")

        before = _stored(run)
        model.set_logger(logger(run.path(), before.get("timesteps", 0)))
        saver = Checkpoints(make_checkpoint, callbacks, config.checkpoint_every, rollout)
        steps = config.rollouts * rollout
        bar = [ProgressBar(steps)] if progress else []
        start = time.perf_counter()
        with closing(model.logger), saver.signals, told(run.path()):
            model.learn(steps, callback=[saver, *callbacks, *bar], log_interval=1)
        run.write_config()
        model.num_timesteps = saver.total
        figures: dict[str, Any] = {
            "algo": algo, "env": config.env, "seed": config.seed,
            "iterations": saver.total // rollout,
            "canvases": saver.total // envs.layout.length,
            "seconds": time.perf_counter() - start,
        }  # fmt: skip
        interrupted = int(saver.signals.received or 0)
        return _finish(run, model, figures, interrupted) | {"interrupted": interrupted}


def _stored(run: RunFolder) -> dict[str, Any]:
    """Where the run stands that goes on.

    Raises:
        ValueError: if an earlier version trained it, which left no checkpoints.
    """
    file = run.path("checkpoint.pt")
    if file.exists():
        return read_tensors(file)["state"]
    if run.path("model.zip").exists():
        raise ValueError(
            f"{run.path()} holds a model and no checkpoint, as a run of an earlier version does: "
            "it cannot go on, choose another folder (--out)"
        )
    return {}


def _finish(
    run: RunFolder, model: Any, figures: dict[str, Any], interrupted: int
) -> dict[str, Any]:
    """Write the model, and measure it if it was not interrupted; gives all figures."""
    zipped = io.BytesIO()
    model.save(zipped)
    write_bytes(run.path("model.zip"), zipped.getvalue())
    envs = vector_env(model.get_env()).envs
    policies = list(model.policy.priors.cpu()) if isinstance(model.policy, PixelCNNPolicy) else []
    if not interrupted:
        grids = None if policies else sample_canvases(model, envs.bundle, 1000)
        own = envs.reward_fn and envs.reward_fn.name
        figures |= results(envs.bundle, policies, figures["seed"], grids=grids, reward_fn=own)
    run.finish(
        envs.bundle,
        policies,
        figures,
        discriminator=envs.discriminator.cpu(),
        discriminator_input=envs.discriminator_input,
        reward_scale=envs.reward_scale,
        complete=not interrupted,
    )
    return figures
