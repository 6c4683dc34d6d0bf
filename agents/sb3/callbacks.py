"""What happens around SB3's updates: rewards credited back, the discriminator, pictures, guards.

Give several as a list; they are called in its order.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Image
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize, unwrap_vec_wrapper
from torch import Tensor, nn
from torchvision.utils import make_grid

from agents.sb3.checks import check
from agents.sb3.policy import PixelCNNPolicy
from agents.sb3.vec_env import vector_env
from agents.training.discriminator import Adversary, DiscriminatorTraining
from ral_env.nets import joint, represent
from ral_env.reward import NORMALISERS


class Episode(NamedTuple):
    """An episode that ended in this rollout.

    ``env`` and ``end`` say which canvas it was and at which step of the rollout it ended;
    ``start`` and ``canvas`` (length,) are its first observation and what became of it;
    ``step_rewards`` (steps,) are what each code earned.
    """

    env: int
    end: int
    start: np.ndarray
    canvas: np.ndarray
    step_rewards: np.ndarray


class _EpisodeCallback(BaseCallback):
    """Notes the episodes that end in a rollout of an on-policy algorithm."""

    def _init_callback(self) -> None:
        if not isinstance(self.model, OnPolicyAlgorithm):
            raise ValueError(
                f"{type(self).__name__} goes with on-policy algorithms (PPO, A2C, TRPO), got "
                f"{type(self.model).__name__}: a replay buffer pays what an earlier discriminator "
                "thought"
            )
        check(self.model)

    def _on_training_start(self) -> None:
        envs, (length,) = self.training_env.num_envs, self.model.observation_space.shape  # type: ignore[misc]
        self._starts = np.zeros((envs, length), np.int64)
        self._known = np.zeros(envs, bool)  # whose start has been seen

    def _on_rollout_start(self) -> None:
        self.episodes: list[Episode] = []
        self._step = -1

    def _on_step(self) -> bool:
        self._step += 1
        new = np.asarray(self.model._last_episode_starts, bool)  # type: ignore[attr-defined]
        self._starts[new] = np.asarray(self.model._last_obs)[new]
        self._known |= new
        empty = self.model.action_space.n  # type: ignore[attr-defined]
        for i in np.flatnonzero(self.locals["dones"] & self._known):
            info, start = self.locals["infos"][i], self._starts[i].copy()
            earned = np.asarray(info["step_rewards"])[: (start == empty).sum()]
            self.episodes.append(Episode(int(i), self._step, start, info["final_canvas"], earned))
        return True

    @property
    def _rollout_is_full(self) -> bool:
        """Whether this step is the last of its rollout."""
        return self._step + 1 == self.locals["n_rollout_steps"]

    @property
    def _policy(self) -> PixelCNNPolicy:
        """The model's policy.

        Raises:
            ValueError: if it is another.
        """
        policy = self.model.policy
        if not isinstance(policy, PixelCNNPolicy):
            raise ValueError(
                f"the policy is {type(policy).__name__}, but {type(self).__name__} asks for the "
                "probabilities of whole canvases: use PixelCNNPolicy"
            )
        return policy


class StepRewards(_EpisodeCallback):
    """Credit each code with what it earned, which is known when its canvas is finished.

    The environment pays an episode's sum in its last step; with ``reward="intermediate"`` the
    final info says which step earned what. At the end of a rollout its rewards are replaced by
    that, and returns and advantages computed anew. Place it before other callbacks that read them.

    With ``kl`` each code's reward is less by kl * (log pi - log pi_reference), in nats (Ziegler et
    al. 2019, arXiv 1909.08593, with kl their beta): the sum over a canvas estimates kl times the
    divergence from the reference. Logs ``rollout/kl_to_reference``, nats per canvas.

    Args:
        kl: weight of the penalty, 0 or more.
        reference: what not to go far from; None is the policy as it is when training starts.

    Raises:
        ValueError: if kl is negative, rollouts are not whole episodes, or VecNormalize would scale
            other rewards than these.
    """

    def __init__(self, kl: float = 0.0, reference: PixelCNNPolicy | None = None, verbose: int = 0):
        super().__init__(verbose)
        if not kl >= 0:
            raise ValueError(f"kl={kl}, expected 0 or more")
        self.kl = kl
        self.reference = reference

    def _init_callback(self) -> None:
        super()._init_callback()
        check(self.model, whole_episodes=True)
        normalised = unwrap_vec_wrapper(self.training_env, VecNormalize)
        if normalised is not None and normalised.norm_reward:
            raise ValueError(
                "VecNormalize(norm_reward=True) scales rewards that StepRewards replaces, "
                "expected norm_reward=False: scores are normalised already"
            )
        if self.kl and self.reference is None:
            self.reference = self._policy.frozen_copy()

    def _on_rollout_end(self) -> None:
        buffer: RolloutBuffer = self.locals["rollout_buffer"]
        credited = np.zeros(buffer.rewards.shape, bool)
        for episode in self.episodes:
            steps = slice(episode.end + 1 - len(episode.step_rewards), episode.end + 1)
            if steps.start >= 0:
                buffer.rewards[steps, episode.env] = episode.step_rewards
                credited[steps, episode.env] = True
        if not credited.all():
            raise ValueError(
                f"{int((~credited).sum())} of {credited.size} steps belong to episodes that are "
                f"not whole in the rollout of n_steps={buffer.buffer_size}, expected a multiple of "
                "the episode's length, begun with it"
            )
        if self.kl:
            self._penalise(buffer)
        buffer.compute_returns_and_advantage(self.locals["values"], self.locals["dones"])

    def _penalise(self, buffer: RolloutBuffer) -> None:
        assert self.reference is not None
        empty, device, total = self.reference.layout.empty, self.reference.device, 0.0
        for first in range(0, len(self.episodes), 16):
            episodes = self.episodes[first : first + 16]
            written = np.stack([episode.start for episode in episodes]) == empty
            canvases = np.stack([episode.canvas for episode in episodes]).astype(np.int64)
            rows = torch.from_numpy(np.where(written, canvases + empty + 2, canvases))
            codes = torch.from_numpy(canvases[written])
            with torch.no_grad():
                _, log_prob, _ = self.reference.evaluate_actions(rows.to(device), codes.to(device))
            ends = written.sum(1).cumsum()[:-1]
            parts = np.split(log_prob.cpu().numpy(), ends)
            for episode, reference in zip(episodes, parts, strict=True):
                steps = slice(episode.end + 1 - len(reference), episode.end + 1)
                further = buffer.log_probs[steps, episode.env] - reference
                buffer.rewards[steps, episode.env] -= self.kl * further
                total += float(further.sum())
        self.logger.record("rollout/kl_to_reference", total / len(self.episodes))


class DiscriminatorCallback(_EpisodeCallback):
    """Train the environment's discriminator beside the policy.

    A copy of it learns from reconstructed real codes against the canvases of each rollout, then
    pays the next one, with its scale normalised anew. Before the first rollout it is warmed up on
    canvases sampled from the policy. Logs its losses and ``discriminator/auc``, how well it tells
    this rollout's canvases, before it learns from them, from held-out real ones; 0.5 is blind.

    Args:
        training: how it learns; the defaults are the paper's.
        updates: updates a rollout.
        warmup: updates before the first rollout.
        batch: canvases of each side in an update.
        net: a new discriminator to start from, with ``discriminator_input``; None goes on from the
            environment's.
        discriminator_input: ``image`` or ``codes``; None keeps the environment's.
        normaliser: of scores, ``batch`` or ``running``.
        seed: of which canvases are drawn.

    Raises:
        ValueError: with off-policy algorithms, whose replay buffer would pay what an earlier
            discriminator thought, or if a setting is unknown.
    """

    def __init__(
        self,
        training: DiscriminatorTraining | None = None,
        updates: int = 5,
        warmup: int = 100,
        *,
        batch: int = 64,
        net: nn.Module | None = None,
        discriminator_input: str | None = None,
        normaliser: str = "batch",
        seed: int = 0,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        if updates < 0 or warmup < 0 or batch < 1:
            raise ValueError(
                f"updates={updates}, warmup={warmup}, batch={batch}, expected 0, 0 and 1 or more"
            )
        if normaliser not in NORMALISERS:
            raise ValueError(f"normaliser={normaliser!r}, expected one of {tuple(NORMALISERS)}")
        self.training = training or DiscriminatorTraining()
        self.updates = updates
        self.warmup = warmup
        self.batch = batch
        self.net = net
        self.discriminator_input = discriminator_input
        self.normaliser = normaliser
        self.generator = torch.Generator().manual_seed(seed)
        self.trainer: Adversary | None = None

    def _init_callback(self) -> None:
        super()._init_callback()
        if self.trainer is not None:
            return  # training goes on
        envs = vector_env(self.training_env).envs
        self._envs, self._layout, self._device = envs, envs.layout, envs.device
        self._vqvae = copy.deepcopy(envs.bundle.vqvae).to(self._device)
        net = copy.deepcopy(self.net or envs.discriminator).to(self._device).eval()
        self.trainer = Adversary(net, self.training)
        self._kind = self.discriminator_input or envs.discriminator_input
        self._scale = NORMALISERS[self.normaliser](envs.reward_scale)
        self._real, self._held_out = (envs.bundle.split(name) for name in ("train", "validation"))
        self._warm = False

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if self._warm or not self.warmup:
            return
        self._warm = True
        priors = self._policy.priors
        noise = torch.Generator(self._policy.device).manual_seed(self.generator.initial_seed())
        fake: list[Tensor] = []
        for _ in range(self.warmup):
            fake = joint.draw(priors, self.batch, noise)  # type: ignore[arg-type]
            fake = [grid.to(self._device) for grid in fake]
            self._update(fake)
        self._pay(fake)

    def _on_rollout_end(self) -> None:
        assert self.trainer is not None
        fakes: dict[int, Any] = {}  # of each height
        for episode in self.episodes:
            fakes.setdefault(int(self._layout.heights(episode.canvas)), []).append(episode.canvas)
        if not fakes:
            return
        fakes = {rows: self._grids(np.stack(some), rows) for rows, some in fakes.items()}
        rows = max(fakes, key=lambda rows: len(fakes[rows][0]))
        count = len(fakes[rows][0])
        real = self._represent(self._some(self._held_out, max(count, self.batch), rows))
        found = self.trainer.held_out_auc(real, self._represent(fakes[rows]))
        self.logger.record("discriminator/auc", found)
        losses: dict[str, float] = {}
        heights = sorted(fakes)
        for _ in range(self.updates):
            rows = heights[self._draw(len(heights), 1)[0]]
            index = self._draw(len(fakes[rows][0]), self.batch)
            losses = self._update([grid[index] for grid in fakes[rows]])
        for name, value in losses.items():
            self.logger.record(f"discriminator/{name}", value)
        self._pay(fakes[rows])
        self.logger.record("discriminator/reward_scale", self._envs.reward_scale)

    def _draw(self, below: int, count: int) -> list[int]:
        return torch.randint(below, (count,), generator=self.generator).tolist()

    def _grids(self, canvases: np.ndarray, rows: int) -> list[Tensor]:
        """Canvases (N, length) cut to their height, as grids."""
        return [
            grid[:, :height].to(self._device)
            for grid, (height, _) in zip(
                self._layout.as_grids(canvases), self._layout.grids(rows), strict=True
            )
        ]

    def _some(self, stored: np.ndarray, count: int, rows: int) -> list[Tensor]:
        return self._grids(stored[self._draw(len(stored), count)], rows)

    def _represent(self, grids: list[Tensor]) -> Tensor:
        with torch.no_grad():
            return represent(self._vqvae, grids, self._kind)

    def _beside(self, fake: list[Tensor]) -> Tensor:
        """As many real canvases of the same height, as the discriminator sees them."""
        rows = fake[0].shape[1]
        return self._represent(self._some(self._real, len(fake[0]), rows))

    def _update(self, fake: list[Tensor]) -> dict[str, float]:
        assert self.trainer is not None
        return self.trainer.update(self._beside(fake), self._represent(fake))

    def _pay(self, fake: list[Tensor]) -> None:
        """Let the environment score with what has been learnt."""
        assert self.trainer is not None
        net = self.trainer.net
        with torch.no_grad():
            self._scale.update(net(self._beside(fake)), net(self._represent(fake)))
        self._envs.set_discriminator(net, self._scale.scale, self._kind)


class SampleGrids(_EpisodeCallback):
    """Show finished canvases, decoded, in TensorBoard: ``samples``.

    SB3 writes what is logged every ``log_interval`` rollouts: give ``learn(log_interval=1)`` to
    A2C, whose own is 100.

    Args:
        every: rollouts between pictures; the first has one.
        count: canvases in a picture, of one height.
    """

    def __init__(self, every: int = 10, count: int = 16, verbose: int = 0):
        super().__init__(verbose)
        if every < 1 or count < 1:
            raise ValueError(f"every={every}, count={count}, expected 1 or more")
        self.every = every
        self.count = count
        self._rollouts = 0

    def _on_rollout_end(self) -> None:
        self._rollouts += 1
        if (self._rollouts - 1) % self.every or not self.episodes:
            return
        envs = vector_env(self.training_env).envs
        canvases = np.stack([episode.canvas for episode in self.episodes])
        heights = envs.layout.heights(canvases)
        images = envs.images(canvases[heights == heights[-1]][: self.count])  # (N, 3, H, W)
        grid = make_grid(torch.from_numpy(images), nrow=int(np.ceil(np.sqrt(len(images)))))
        self.logger.record("samples", Image(grid, "CHW"), exclude=("stdout", "log", "json", "csv"))


class CollapseGuard(_EpisodeCallback):
    """Stop when the policy has lost what the prior knew, and go back to where it had not.

    At the end of each rollout, before it is learnt from, the policy that collected it is measured:
    ``guard/nll``, nats per canvas of held-out real codes (forward: a lost mode shows here);
    ``guard/diversity``, the mean share of written cells in which two of the rollout's canvases
    differ; ``guard/entropy``, the rollout's mean -log pi, nats per code. If nll exceeds its first
    value by more than ``max_nats``, or diversity falls below ``min_diversity`` times its own, the
    parameters of the last rollout that passed are restored and training stops, with a warning;
    ``stopped`` says why. After the last update nll alone is measured, with the same consequence.
    The optimiser's state is not restored. The first values are those of the first rollout that
    this callback sees, and stay so if training goes on.

    Args:
        max_nats: by how much nll may grow, nats per canvas.
        min_diversity: share of the first diversity that must be left, 0 to 1.
        count: held-out canvases that nll is taken on, at most; the first of the split.
    """

    def __init__(
        self, max_nats: float, min_diversity: float = 0.5, count: int = 256, verbose: int = 0
    ):
        super().__init__(verbose)
        if not max_nats > 0 or not 0 <= min_diversity <= 1 or count < 1:
            raise ValueError(
                f"max_nats={max_nats}, min_diversity={min_diversity}, count={count}, expected more "
                "than 0, 0 to 1, and 1 or more"
            )
        self.max_nats = max_nats
        self.min_diversity = min_diversity
        self.count = count
        self.stopped: str | None = None
        self._first: tuple[float, float] | None = None  # nll, diversity
        self._good: dict[str, Tensor] = {}

    def _init_callback(self) -> None:
        super()._init_callback()
        bundle = vector_env(self.training_env).envs.bundle
        held_out = bundle.layout.as_grids(bundle.split("validation")[: self.count])
        self._held_out = [grid.to(self._policy.device) for grid in held_out]
        self.stopped = None

    def _on_rollout_start(self) -> None:
        super()._on_rollout_start()
        self._log_probs: list[float] = []

    def _on_step(self) -> bool:
        super()._on_step()
        self._log_probs.append(self.locals["log_probs"].mean().item())
        if not self._rollout_is_full:
            return True
        nll, diversity = self._nll(), self._diversity()
        self.logger.record("guard/nll", nll)
        self.logger.record("guard/diversity", diversity)
        self.logger.record("guard/entropy", -float(np.mean(self._log_probs)))
        self._first = self._first or (nll, diversity)
        if (why := self._why(nll, diversity)) is None:
            state = self._policy.state_dict()
            self._good = {name: value.clone() for name, value in state.items()}
            return True
        self._restore(why)
        return False

    def _on_training_end(self) -> None:
        if self.stopped is not None:
            # The rollout was broken off: training that goes on begins with new episodes. Not
            # earlier, since callbacks after this one still read the observation of its last step.
            self.model._last_obs = None
        if self.stopped is None and self._first is not None:
            why = self._why(self._nll(), self._first[1])
            if why is not None:
                self._restore(why)

    def _nll(self) -> float:
        priors: Any = self._policy.priors
        return -joint.total_log_prob(priors, self._held_out).mean().item()

    def _diversity(self) -> float:
        """Mean over written cells of the share of pairs of canvases that differ there."""
        if len(self.episodes) < 2:
            return 1.0
        layout = self._policy.layout
        canvases = np.stack([episode.canvas for episode in self.episodes]).astype(np.int64)
        written = np.stack([episode.start for episode in self.episodes]) == layout.empty
        cells = np.broadcast_to(np.arange(layout.length) * layout.num_codes, canvases.shape)
        counts = np.bincount(
            (cells + canvases)[written], minlength=canvases.shape[1] * layout.empty
        )
        counts = counts.reshape(layout.length, layout.num_codes)
        total = counts.sum(1)
        pairs, same = total * (total - 1), (counts * (counts - 1)).sum(1)
        return float((1 - same[pairs > 0] / pairs[pairs > 0]).mean())

    def _why(self, nll: float, diversity: float) -> str | None:
        assert self._first is not None
        first_nll, first_diversity = self._first
        if not nll <= first_nll + self.max_nats:  # not finite counts too
            return (
                f"held-out codes cost {nll:.2f} nats a canvas, at first {first_nll:.2f}, at most "
                f"{self.max_nats} more are allowed"
            )
        if diversity < self.min_diversity * first_diversity:
            return (
                f"canvases differ in {diversity:.3f} of their cells, at first {first_diversity:.3f}"
                f", at least {self.min_diversity} times that is expected"
            )
        return None

    def _restore(self, why: str) -> None:
        self.stopped = why
        if self._good:
            self._policy.load_state_dict(self._good)
        warnings.warn(
            f"the policy collapses: {why}. The last good parameters are restored and training "
            "stops; lower the learning rate, or give StepRewards(kl=...)",
            stacklevel=2,
        )


class ValueWarmup(_EpisodeCallback):
    """Let only the critic learn from the first rollouts: a policy that follows an ignorant critic
    is pushed about by noise.

    Args:
        rollouts: that only the critic learns from, counted over all training with this callback.
        epochs: passes over each of them (A2C has but one): with the prior frozen, none is too many
            for it.
    """

    def __init__(self, rollouts: int = 5, epochs: int = 20, verbose: int = 0):
        super().__init__(verbose)
        if rollouts < 0 or epochs < 1:
            raise ValueError(f"rollouts={rollouts}, epochs={epochs}, expected 0 and 1 or more")
        self.rollouts = rollouts
        self.epochs = epochs
        self._done = 0
        self._settings: dict[str, Any] = {}  # of the algorithm, to be put back

    def _on_rollout_start(self) -> None:
        super()._on_rollout_start()
        if self._done < self.rollouts:
            self._begin()
        else:
            self._end()

    def _on_rollout_end(self) -> None:
        self._done += 1

    def _on_training_end(self) -> None:
        self._end()

    def _begin(self) -> None:
        if self._settings:
            return
        # TRPO wants a gradient of the policy: it gets one, and no step along it.
        wanted = {"n_epochs": self.epochs, "n_critic_updates": self.epochs}
        wanted["line_search_max_iter"] = 0
        for name in wanted:
            if hasattr(self.model, name):
                self._settings[name] = getattr(self.model, name)
                setattr(self.model, name, wanted[name])
        self._policy.freeze_prior("line_search_max_iter" not in self._settings)

    def _end(self) -> None:
        for name, value in self._settings.items():
            setattr(self.model, name, value)
        self._settings = {}
        self._policy.freeze_prior(False)
