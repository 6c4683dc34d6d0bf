"""Settings that are right for writing codes, and a check for those that silently are not."""

from __future__ import annotations

import warnings
from typing import Any

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize, unwrap_vec_wrapper

from agents.sb3.buffer import EpisodeBuffer
from agents.sb3.policy import InitialPrior, PixelCNNPolicy, check_priors
from agents.sb3.vec_env import LatentCanvasVecEnv, vector_env

# Settings by algorithm, beside those that all have.
_SETTINGS: dict[str, dict[str, Any]] = {
    "PPO": {"n_epochs": 2},
    "A2C": {"use_rms_prop": False},  # RMSprop's first steps are tenfold
    # The bound is per code: 64 codes are 0.06 nats a canvas. The learning rate is the critic's.
    # (sb3-contrib takes two backward passes for each parameter tensor: far slower than the others.)
    "TRPO": {"target_kl": 1e-3},
}


def defaults(algorithm: type, envs: Any, **changes: Any) -> dict[str, Any]:
    """Arguments with which ``algorithm(PixelCNNPolicy, envs, **defaults(algorithm, envs))`` is
    right: it begins as the bundle's prior and learns from whole episodes.

    The return of a canvas is its sum of scores, so gamma is 1. So is gae_lambda: the score comes
    at the end, and with less it would reach early codes through the critic alone, which knows
    nothing at first. A minibatch is the whole rollout. Steps are small and few (PPO's n_epochs 2):
    a pretrained policy has much to lose. The learning rate falls from 1e-4 to a tenth over a call
    of ``learn``, since a policy gradient's noise does not shrink by itself.

    Args:
        algorithm: PPO, A2C or TRPO (sb3-contrib), or a subclass.
        envs: environments from :func:`make_vec_env`.
        changes: arguments of the algorithm that are added to these, or replace them;
            ``policy_kwargs`` are merged.

    Raises:
        ValueError: if the algorithm is another, episodes differ in length, the bundle has no
            PixelCNN priors, or a change breaks what :func:`check` asks for.
    """
    name = next((base.__name__ for base in algorithm.__mro__ if base.__name__ in _SETTINGS), None)
    if name is None:
        raise ValueError(
            f"{algorithm.__name__} takes no PixelCNNPolicy, expected one of {list(_SETTINGS)}; "
            'others learn with their own "MlpPolicy" and features_extractor_class='
            "CodeEmbeddingExtractor"
        )
    adapter = vector_env(envs)
    length = adapter.episode_length
    if length is None:
        raise ValueError(_several_lengths(adapter))
    priors = adapter.envs.bundle.priors
    check_priors(priors)
    n_steps = changes.get("n_steps", length)
    arguments = {
        "n_steps": n_steps,
        "learning_rate": LinearSchedule(1e-4, 1e-5, 1.0),
        "gamma": 1.0,
        "gae_lambda": 1.0,
        "rollout_buffer_class": EpisodeBuffer,
        **({} if name == "A2C" else {"batch_size": n_steps * adapter.num_envs}),
        **_SETTINGS[name],
        **changes,
        "policy_kwargs": {
            "configs": tuple(prior.config for prior in priors),
            "prior": InitialPrior(priors),
            **(changes.get("policy_kwargs") or {}),
        },
    }
    if issubclass(arguments["rollout_buffer_class"], EpisodeBuffer):
        _check_multiple("n_steps", n_steps, length)
        _check_multiple("batch_size", arguments.get("batch_size", length), length)
        _check_sub_sampling(arguments.get("sub_sampling_factor", 1))
    return arguments


def check(model: Any, whole_episodes: bool = False) -> None:
    """Refuse settings that break learning without an error of their own.

    The callbacks of this package call it when training starts.

    Args:
        model: an SB3 algorithm with its environments.
        whole_episodes: whether rollouts must be whole episodes, as an EpisodeBuffer's are.

    Raises:
        ValueError: says what was given and what to use instead.
    """
    envs = model.get_env()
    if envs is None:
        raise ValueError("the model has no environments: give them with set_env or load(env=...)")
    normalised = unwrap_vec_wrapper(envs, VecNormalize)
    if normalised is not None and normalised.norm_obs:
        raise ValueError(
            "VecNormalize(norm_obs=True) turns codes into magnitudes, expected norm_obs=False"
        )
    episodes = isinstance(getattr(model, "rollout_buffer", None), EpisodeBuffer)
    if episodes and not isinstance(model.policy, PixelCNNPolicy):
        raise ValueError(
            f"an EpisodeBuffer shows finished canvases, which {type(model.policy).__name__} cannot "
            "read: use PixelCNNPolicy, or leave rollout_buffer_class out"
        )
    cells = model.observation_space.shape[0]
    if model.gamma**cells < 1e-2:
        warnings.warn(
            f"gamma={model.gamma}: a score is worth {model.gamma**cells:.1e} to the first of "
            f"{cells} codes, which learns nothing from it; use gamma=1.0",
            stacklevel=2,
        )
    adapter = envs.unwrapped
    if not isinstance(model, OnPolicyAlgorithm) or not (episodes or whole_episodes):
        return
    if isinstance(adapter, LatentCanvasVecEnv):
        length = adapter.episode_length
        if length is None:
            raise ValueError(_several_lengths(adapter))
        _check_multiple("n_steps", model.n_steps, length)
        if episodes:
            _check_multiple("batch_size", getattr(model, "batch_size", length), length)
    if episodes:
        _check_sub_sampling(getattr(model, "sub_sampling_factor", 1))


def _several_lengths(adapter: LatentCanvasVecEnv) -> str:
    return (
        f"start={adapter.envs.start!r} begins episodes of several lengths, but rollouts of whole "
        'episodes need one: use start="full", or make_vec_env(..., rows=...) to begin all with as '
        "many rows"
    )


def _check_multiple(name: str, value: int, length: int) -> None:
    if value % length:
        raise ValueError(
            f"{name}={value} is no multiple of the {length} codes that an episode writes, expected "
            f"{name}={max(1, value // length) * length}"
        )


def _check_sub_sampling(factor: int) -> None:
    if factor != 1:
        raise ValueError(
            f"sub_sampling_factor={factor} takes codes out of whole episodes, expected 1"
        )
