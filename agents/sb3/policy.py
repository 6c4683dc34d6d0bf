"""The priors as an SB3 actor-critic policy."""

from __future__ import annotations

import dataclasses
import difflib
import os
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import gymnasium as gym
import torch
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from agents.sb3.cells import CellFeatures, cell_features
from agents.sb3.critic import multiply_learning_rate, value_head
from agents.sb3.incremental import StepCache
from agents.sb3.observations import check_spaces, read
from ral_env import bundle as bundles
from ral_env.layout import CodeLayout
from ral_env.nets import PixelCNN, PixelCNNConfig
from ral_env.ranges import COUNT, check_values

# What SB3's own policies are told of their nets.
NETS = (
    "net_arch", "activation_fn", "ortho_init", "features_extractor_class",
    "features_extractor_kwargs", "share_features_extractor", "normalize_images",
)  # fmt: skip
NOISE = ("log_std_init", "full_std", "use_expln", "squash_output")  # of continuous actions


class InitialPrior:
    """The priors that a policy begins with, for ``policy_kwargs``.

    Pickled it is empty: a saved model brings its own weights, holds no second copy of the prior,
    and needs no bundle to be loaded.

    Args:
        priors: one a level, top first.
    """

    def __init__(self, priors: Sequence[PixelCNN] = ()):
        self.priors = tuple(priors)

    def __reduce__(self) -> tuple[Any, ...]:
        return InitialPrior, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> InitialPrior:
        return self


class PixelCNNPolicy(ActorCriticPolicy):
    """Actor-critic around a bundle's priors: all levels are one policy, the coarsest first.

    Observations are canvases (B, length), of any dtype (see :mod:`agents.sb3.observations`). In
    *steps*, as the environment shows them, each canvas asks for the code of its first EMPTY cell:
    N = B. In *episodes*, as :class:`EpisodeBuffer` gives them, a canvas asks for all codes that
    the episode wrote, in the order of writing, episode after episode: N = episodes * steps, from
    one teacher-forced pass. Values are (N, 1), log-probs and entropies (N,), in nats. Canvases may
    differ in height and in what they start with.

    The critic reads the actor's features of the cell to be written, which depend on earlier cells
    alone: V is a function of the state. Its last layer starts at zero, so that V = 0 at first.

    Dropout is always off, whatever SB3 sets: the policy that learns is the one that acts. While
    gradients are off, steps are evaluated incrementally (see :class:`StepCache`); ``use_cache =
    False`` switches that off.

    ``torch.compile`` leaves it as it is: it takes the policy, which goes on eagerly, as its cache
    depends on the canvases that it sees. For the same reason it cannot be traced, scripted or
    exported, which says so; its priors can be exported, ``torch.export.export`` takes a module that
    calls ``policy.priors[0].logits``.

    Args:
        observation_space, action_space: those of one of our environments.
        lr_schedule: learning rate as a function of the remaining progress, 1 to 0.
        configs: sizes of each level's prior, top first.
        prior: weights to begin with; None leaves random ones.
        value_hidden: units of the critic's hidden layer.
        value_rate: how many times as fast as the priors, which have been trained, the critic
            learns, which has not: its learning rate in units of SB3's.
        detach_value: keep the value loss from moving the actor's features.
        use_sde: must be False: state-dependent exploration is for continuous actions.
        optimizer_class, optimizer_kwargs: as SB3 has them.
        others: must be left out: what SB3's policies take beside these, and this one cannot.

    Raises:
        ValueError: if spaces, configs and priors do not fit each other, a setting is one that this
            policy does not have, or an observation is no canvas.
    """

    use_cache = True

    def __init__(
        self,
        observation_space: gym.spaces.Space,
        action_space: gym.spaces.Space,
        lr_schedule: Any,
        configs: Sequence[PixelCNNConfig] = (),
        prior: InitialPrior | None = None,
        value_hidden: int = 64,
        value_rate: float = 30.0,
        detach_value: bool = True,
        use_sde: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **others: Any,
    ):
        _refuse(others)
        if use_sde:
            raise ValueError(
                "use_sde=True is for continuous actions, expected False: codes are not"
            )
        if not configs or not all(isinstance(config, PixelCNNConfig) for config in configs):
            raise ValueError(
                f"configs={configs!r}, expected a PixelCNNConfig for each level, such as "
                "[prior.config for prior in bundle.priors]; agents.sb3.defaults gives them"
            )
        if not isinstance(prior, InitialPrior | None):
            raise ValueError(
                f"prior is a {type(prior).__name__}, expected InitialPrior(bundle.priors); "
                "agents.sb3.defaults gives it"
            )
        given = {"value_hidden": value_hidden, "value_rate": value_rate}
        check_values(given, value_hidden=COUNT, value_rate="(0, inf)")
        # Before the base class, which builds the nets.
        self.configs = tuple(configs)
        self.layout = CodeLayout(tuple(c.grid for c in configs), configs[0].num_codes)
        self.value_hidden = value_hidden
        self.value_rate = value_rate
        self.detach_value = detach_value
        check_spaces(observation_space, action_space, self.layout)
        self._step_cache: StepCache | None = None
        self._warned_of_argmax = False
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        if prior is not None and prior.priors:
            self.load_prior(prior.priors)

    def _build(self, lr_schedule: Any) -> None:
        """Makes the priors, the critic and their optimiser; SB3 would make an MLP."""
        self.priors = nn.ModuleList(PixelCNN(config) for config in self.configs)
        # TRPO knows by "value" in a parameter's name that it is the critic's.
        self.value_net = nn.ModuleList(
            value_head(c.hidden, self.value_hidden) for c in self.configs
        )
        self.priors.eval()
        self.optimizer = self.optimizer_class(
            [{"params": self.priors.parameters()}, {"params": self.value_net.parameters()}],
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )
        self._speed_up_critic()

    def _speed_up_critic(self) -> None:
        multiply_learning_rate(self.optimizer, 1, self.value_rate)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        """What a loaded policy is made from again: not the prior, whose weights it has."""
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "configs": self.configs,
            "value_hidden": self.value_hidden,
            "value_rate": self.value_rate,
            "detach_value": self.detach_value,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the cache out of copies."""
        return {**self.__dict__, "_step_cache": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Brings back the critic's learning rate: copies of optimisers leave hooks behind."""
        super().__setstate__(state)
        self._speed_up_critic()

    def __prepare_scriptable__(self) -> Any:
        """What ``torch.jit.script`` asks for first."""
        _refuse_export()

    # --- weights ---

    def load_prior(
        self, source: str | os.PathLike[str] | bundles.Bundle | Sequence[PixelCNN]
    ) -> None:
        """Copy the weights of a bundle's priors; the critic stays as it is.

        Args:
            source: name or path of a bundle, a loaded one, or priors, one a level, top first.

        Raises:
            ValueError: if there are not as many priors as levels, or one has other sizes.
        """
        if isinstance(source, str | os.PathLike):
            source = bundles.load(source)
        priors: Any = getattr(source, "priors", source)
        check_priors(priors)
        if len(priors) != len(self.configs):
            raise ValueError(f"{len(priors)} priors, expected {len(self.configs)}: one a level")
        for level, (config, prior) in enumerate(zip(self.configs, priors, strict=True)):
            if dataclasses.replace(prior.config, dropout=config.dropout) != config:
                raise ValueError(
                    f"the prior of level {level} is {prior.config}, expected {config}: build the "
                    "policy with the configs of the priors that it is to hold"
                )
            self.priors[level].load_state_dict(prior.state_dict())

    def freeze_prior(self, frozen: bool) -> None:
        """Let only the critic learn, or both again."""
        self.priors.requires_grad_(not frozen)

    def frozen_copy(self) -> PixelCNNPolicy:
        """This policy's priors as they are now, for reference: nothing in it learns."""
        copy = type(self)(**self._get_constructor_parameters())
        copy.load_prior(list(self.priors))  # type: ignore[arg-type]
        return copy.to(self.device).requires_grad_(False)

    def train(self, mode: bool = True) -> PixelCNNPolicy:
        """As torch has it, but the priors' dropout stays off; forgets what the cache holds."""
        super().train(mode)
        self.priors.eval()
        if mode and self._step_cache is not None:
            self._step_cache.clear()
        return self

    # --- canvases to features, logits, values ---

    def _evaluate(
        self, obs: Tensor, logits: bool = True, values: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """Logits (N, num_codes) and values (N, 1), those that are wanted."""
        if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined]
            _refuse_export()
        canvas, asked = read(obs, self.layout)
        with_gradients = torch.is_grad_enabled()
        if not with_gradients and self.use_cache and bool((canvas == self.layout.empty).any()):
            if self._step_cache is None:
                self._step_cache = StepCache(list(self.priors), self.layout)  # type: ignore[arg-type]
            step = self._step_cache.features(canvas)
            if step is not None:
                level, features = step
                cells = CellFeatures([level], [features], None)
                return (
                    self._step_cache.logits() if logits else None,
                    self._values(cells) if values else None,
                )
        with torch.set_grad_enabled(with_gradients and (logits or not self.detach_value)):
            cells = cell_features(self.priors, canvas, asked, self.layout)
        return self._logits(cells) if logits else None, self._values(cells) if values else None

    def _logits(self, cells: CellFeatures) -> Tensor:
        """(N, num_codes)."""
        groups = [
            self.priors[level].readout(features[None, None])[0, 0]  # type: ignore[operator]
            for level, features in zip(cells.levels, cells.features, strict=True)
        ]
        return cells.join(groups)

    def _values(self, cells: CellFeatures) -> Tensor:
        """(N, 1)."""
        groups = [
            self.value_net[level](features.detach() if self.detach_value else features)
            for level, features in zip(cells.levels, cells.features, strict=True)
        ]
        return cells.join(groups)

    def _distribution(self, logits: Tensor | None) -> Distribution:
        return self.action_dist.proba_distribution(action_logits=logits)  # type: ignore[call-arg]

    # --- what SB3 calls ---

    @torch.compiler.disable
    def forward(  # type: ignore[override]
        self, obs: Tensor, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Codes int64 (N,), values (N, 1) and the codes' log-probs (N,), in nats."""
        logits, values = self._evaluate(obs)
        distribution = self._distribution(logits)
        codes = distribution.get_actions(deterministic=deterministic)
        return codes, values, distribution.log_prob(codes)  # type: ignore[return-value]

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values (N, 1), log-probs (N,) of ``actions`` (N,), entropies (N,), in nats."""
        logits, values = self._evaluate(obs)
        assert logits is not None and values is not None
        if len(actions) != len(logits):
            raise ValueError(
                f"{len(actions)} actions for canvases that ask for {len(logits)} codes: take both "
                "from one minibatch of the buffer, whole (no sub-sampling)"
            )
        distribution = self._distribution(logits)
        return values, distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: Any) -> Distribution:
        """The distribution of the next codes, N of them."""
        return self._distribution(self._evaluate(obs, values=False)[0])

    def predict_values(self, obs: Any) -> Tensor:
        """Values (N, 1)."""
        values = self._evaluate(obs, logits=False)[1]
        assert values is not None
        return values

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        """As SB3 has it; warns once if codes are not sampled."""
        if deterministic and not self._warned_of_argmax:
            self._warned_of_argmax = True
            warnings.warn(
                "deterministic=True takes the likeliest code always: one and the same image from "
                "each start, unlike anything the policy is trained to write. Give "
                "deterministic=False, to SB3's evaluate_policy and EvalCallback too",
                stacklevel=2,
            )
        return super()._predict(observation, deterministic)


def _refuse(settings: dict[str, Any]) -> None:
    """Refuse settings of SB3's policies, and unknown ones, with a word on what to use.

    Raises:
        ValueError: if there are any.
    """
    for name, value in settings.items():
        known = ("configs", "prior", "value_hidden", "value_rate", "detach_value", "use_sde",
                 "optimizer_class", "optimizer_kwargs")  # fmt: skip
        if name in NETS:
            why = (
                "its nets are the bundle's priors and a critic that reads their features: their "
                "sizes are configs and value_hidden"
            )
        elif name in NOISE:
            why = "it is for continuous actions, and codes are not"
        else:
            near = difflib.get_close_matches(name, known) or known
            why = f"expected {', '.join(near)}"
        raise ValueError(f"PixelCNNPolicy takes no {name} ({name}={value!r}): {why}")


def _refuse_export() -> NoReturn:
    raise ValueError(
        "a PixelCNNPolicy cannot be traced, scripted or exported: which cell a canvas asks for, "
        "and what is cached of it, depends on the codes in it. Export a prior, whose logits do "
        "not: a module whose forward(codes) is policy.priors[0].logits(codes)"
    )


def check_priors(priors: Sequence[Any]) -> None:
    """Refuse priors that a PixelCNNPolicy cannot hold.

    Raises:
        ValueError: if there is none, or one is no PixelCNN.
    """
    names = [type(prior).__name__ for prior in priors]
    if not priors or not all(isinstance(prior, PixelCNN) for prior in priors):
        raise ValueError(
            f"the priors are {names}, expected a PixelCNN for each level: a bundle of "
            "`ral pretrain` has them"
        )
