"""Stable-Baselines3's algorithms on tiny bundles, and a record of what they were given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from conftest import close
from stable_baselines3.common.callbacks import BaseCallback

from agents.sb3 import (
    CodeEmbeddingExtractor,
    InitialPrior,
    PixelCNNPolicy,
    defaults,
    make_vec_env,
)
from ral_env import bundle

STARTS = [("full", 8), ("continue", 3), ("scratch", 5)]  # modes, and rows

# policy_kwargs of SB3's own policies
EMBEDDED: dict[str, Any] = {"features_extractor_class": CodeEmbeddingExtractor}


def envs_of(path: Path, count: int = 4, **arguments: Any) -> Any:
    """Environments of a bundle."""
    return make_vec_env("RALBundle-v0", count, seed=0, bundle=str(path), **arguments)


def model_of(
    algorithm: Any, path: Path, environment: dict[str, Any] | None = None, **changes: Any
) -> Any:
    """An algorithm with a bundle's priors as its policy, on four canvases."""
    envs = envs_of(path, **(environment or {}))
    return algorithm(PixelCNNPolicy, envs, seed=0, **defaults(algorithm, envs, **changes))


def prior_of(model: Any) -> torch.Tensor:
    """A copy of all weights of the policy's priors, one after the other."""
    return torch.cat([p.detach().flatten() for p in model.policy.priors.parameters()]).clone()


def bias(model: Any, code: int = 3, by: float = 4.0) -> None:
    """Let the policy prefer a code."""
    with torch.no_grad():
        for prior in model.policy.priors:
            prior.head.bias[code] += by


def policy_of(path, noise: float = 0.5, **arguments: Any) -> PixelCNNPolicy:
    """The policy of a bundle's priors; with ``noise`` all parameters, the critic's too, differ."""
    loaded = bundle.load(path)
    layout = loaded.layout
    policy = PixelCNNPolicy(
        gym.spaces.Box(0, layout.outside, (layout.length,), np.int16),
        gym.spaces.Discrete(layout.num_codes),
        lambda _: 1e-3,
        configs=[prior.config for prior in loaded.priors],
        prior=InitialPrior(loaded.priors),
        **arguments,
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += noise * 0.1 * torch.randn_like(parameter)
    return policy


def canvases(policy: PixelCNNPolicy, start: str, rows: int, count: int = 3):
    """Start canvases (B, length), and the same finished, int64."""
    layout = policy.layout
    torch.manual_seed(2)
    codes = torch.randint(layout.num_codes, (count, layout.length))
    head = torch.from_numpy(layout.head(rows))
    if start == "continue":
        return torch.where(head, codes, layout.empty), codes
    codes = torch.where(head, codes, layout.outside)
    return torch.where(head, layout.empty, codes), codes


def raised(policy: PixelCNNPolicy, start: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Finished episodes as the buffer gives them."""
    return torch.where(start == policy.layout.empty, codes + policy.layout.num_codes + 2, codes)


def played(policy: PixelCNNPolicy, start: torch.Tensor, codes: torch.Tensor, every: int = 1):
    """Log-probs and values (B, T) of writing ``codes`` code by code, as the environment does."""
    canvas, log_probs, values = start.clone(), [], []
    for step, cell in enumerate((start[0] == policy.layout.empty).nonzero()[:, 0]):
        if step % every == 0:
            obs = canvas.to(torch.int16)
            log_probs.append(policy.get_distribution(obs).log_prob(codes[:, cell]))
            values.append(policy.predict_values(obs)[:, 0])
        canvas[:, cell] = codes[:, cell]
    return torch.stack(log_probs, 1), torch.stack(values, 1)


def logits_of(policy: PixelCNNPolicy, canvas: torch.Tensor) -> torch.Tensor:
    """Logits of the next codes, (B, num_codes)."""
    distribution: Any = policy.get_distribution(canvas).distribution
    return distribution.logits


def entropy_of(policy: PixelCNNPolicy, canvas: torch.Tensor) -> torch.Tensor:
    """Entropy of the next codes, (B,), nats."""
    entropy = policy.get_distribution(canvas).entropy()
    assert entropy is not None
    return entropy


def assert_evaluations_agree(policy: PixelCNNPolicy, canvas: torch.Tensor) -> None:
    """Assert that the incremental and the plain evaluation say the same of a canvas."""
    with torch.no_grad():
        logits = logits_of(policy, canvas).clone()
        values = policy.predict_values(canvas)
        policy.use_cache = False
        assert logits == close(logits_of(policy, canvas))
        assert values == close(policy.predict_values(canvas))
        policy.use_cache = True


class Recorder(BaseCallback):
    """Records rollouts as they are when the callbacks before it are done.

    Attributes:
        rollouts: for each, arrays of the buffer (steps, envs), and ``observations``
            (steps, envs, length).
        finals: for each, the infos of the episodes that ended in it, with their ``env``.
        logged: for each, what the logger held.
    """

    def __init__(self):
        super().__init__()
        self.rollouts: list[dict[str, np.ndarray]] = []
        self.finals: list[list[dict[str, Any]]] = []
        self.logged: list[dict[str, Any]] = []
        self._observations: list[np.ndarray] = []

    def _on_rollout_start(self) -> None:
        self.finals.append([])
        self._observations = []

    def _on_step(self) -> bool:
        self._observations.append(self.model._last_obs.copy())  # type: ignore[union-attr]
        done = np.flatnonzero(self.locals["dones"])
        self.finals[-1] += [{"env": i, **self.locals["infos"][i]} for i in done]
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.locals["rollout_buffer"]
        names = ("rewards", "actions", "values", "log_probs", "advantages", "returns")
        arrays = {name: getattr(buffer, name).copy() for name in names}
        self.rollouts.append({**arrays, "observations": np.stack(self._observations)})
        self.logged.append(dict(self.logger.name_to_value))
