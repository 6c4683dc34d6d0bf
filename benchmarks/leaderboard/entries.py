"""The leaderboard's entries: what each does with its seconds.

Each is a function of a task, a bundle, a clock and settings that returns a :class:`Contender`.
Seconds are the processor's, and include whatever discriminator the entry trains. The first settings
of an entry are those that it is run with unless trials have found better ones; all entries that
learn have the same number of them, :data:`TRIALS`.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from agents import reinforce, rounds
from agents.evaluation.frontier import TEMPERATURES
from agents.rounds.state import TrainState
from agents.training.fit import PriorTraining, fit_priors
from agents.training.optimise import average_into
from benchmarks.demo import CONTINUED_TRAINING
from ral_env.bundle import Bundle
from ral_env.nets import joint
from ral_env.nets.resample import resample, score

TRIALS = 3  # settings that each entry that learns is tried with on the tuning split
TOGETHER = 250  # canvases that are sampled together
clock = time.process_time


@dataclass(frozen=True)
class Contender:
    """What an entry leaves to be measured: priors, or something that draws canvases.

    Args:
        priors: One a level, the coarsest first; none if it draws by other means.
        draw: Called with a count and a seed, gives int64 codes (count, h, w), a grid a level. What
            it gives depends on both alone.
        real: Whether what it draws are training canvases, which judges must not learn from twice.
        temperatures: Those that the priors are measured at; the best on the tuning split counts.
        canvases: Number of canvases that were sampled in training.
        seconds: Processor seconds of the training.
    """

    priors: Sequence[Any] = ()
    draw: Callable[[int, int], list[Tensor]] | None = None
    real: bool = False
    temperatures: Sequence[float] = TEMPERATURES
    canvases: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Budget:
    """What an entry is given.

    Args:
        env: Id of the environment.
        seconds: Processor seconds of training.
        seed: Seed of all that is random.
        bundle: Name or path of the bundle, None for the environment's own.
    """

    env: str
    seconds: float
    seed: int
    bundle: str | None = None


Train = Callable[[Budget, Bundle, Mapping[str, Any]], Contender]


@dataclass(frozen=True)
class Entry:
    """A row of the leaderboard.

    Args:
        name: What stands in the table.
        about: What it is, in a sentence.
        train: Makes the contender.
        trials: Settings that it may be tried with, the first of them unless trials say otherwise.
        learns: Whether the budget's seconds change anything.
    """

    name: str
    about: str
    train: Train
    trials: tuple[Mapping[str, Any], ...] = field(default=({},))
    learns: bool = True


# --- what learns nothing ---


def real_data(budget: Budget, bundle: Bundle, settings: Mapping[str, Any]) -> Contender:
    """Training canvases, drawn without replacement where there are enough."""
    train = bundle.layout.as_grids(bundle.split("train"))

    def draw(count: int, seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        index = torch.cat([
            torch.randperm(len(train[0]), generator=generator)
            for _ in range(-(-count // len(train[0])))
        ])[:count]  # fmt: skip
        return [grid[index] for grid in train]

    return Contender(draw=draw, real=True)


def random_codes(budget: Budget, bundle: Bundle, settings: Mapping[str, Any]) -> Contender:
    """Every code as likely as any other."""
    return Contender(draw=partial(uniform, bundle))


def uniform(bundle: Bundle, count: int, seed: int) -> list[Tensor]:
    """Codes that are drawn uniformly, int64 (count, h, w) a level."""
    layout, generator = bundle.layout, torch.Generator().manual_seed(seed)
    return [
        torch.randint(layout.num_codes, (count, *level), generator=generator)
        for level in layout.levels
    ]


def prior(budget: Budget, bundle: Bundle, settings: Mapping[str, Any]) -> Contender:
    """The bundle's prior, by default at temperature 1."""
    return Contender(bundle.priors, temperatures=settings.get("temperatures", (1.0,)))


# --- more likelihood ---


def continued_mle(budget: Budget, bundle: Bundle, settings: Mapping[str, Any]) -> Contender:
    """The prior goes on learning by likelihood; the best weights in validation are kept."""
    start = clock()
    training = dataclasses.replace(CONTINUED_TRAINING, **settings)
    priors = _fitted(
        copy.deepcopy(list(bundle.priors)),
        bundle,
        [training] * len(bundle.priors),
        budget.seed,
        budget.seconds,
    )
    return Contender(priors, seconds=clock() - start)


def wide_mle(budget: Budget, bundle: Bundle, settings: Mapping[str, Any]) -> Contender:
    """A prior of twice the width, so about four times the parameters, from nothing.

    It gets ten times the budget, as the others begin with a prior that has learned.
    """
    start = clock()
    configs = [
        dataclasses.replace(p.config, hidden=2 * p.config.hidden, residual=2 * p.config.residual)
        for p in bundle.priors
    ]
    training = dataclasses.replace(CONTINUED_TRAINING, **settings)
    seconds = 10 * budget.seconds
    priors = _fitted(configs, bundle, [training] * len(configs), budget.seed, seconds)
    return Contender(priors, seconds=clock() - start)


def _fitted(
    priors: Sequence[Any],
    bundle: Bundle,
    trainings: Sequence[PriorTraining],
    seed: int,
    seconds: float,
) -> list[Any]:
    """Nets, or nets of these sizes, trained for that many processor seconds."""
    train, validation = (bundle.layout.as_grids(bundle.split(s)) for s in ("train", "validation"))
    torch.manual_seed(seed)
    fitted, _ = fit_priors(
        priors, train, validation, trainings, seed=seed, seconds=seconds,
        options=lambda level, made: {"clock": clock},
    )  # fmt: skip
    return fitted


# --- the loop, and rounds ---


def loop(budget: Budget, bundle: Bundle, settings: Mapping[str, Any]) -> Contender:
    """The loop of REINFORCE and its relatives, with a preset's settings or others."""
    changed = dict(settings)
    config = dataclasses.replace(
        reinforce.fit_preset(changed.pop("preset", "small"), bundle),
        env=budget.env,
        seconds=budget.seconds,
        iterations=10**9,
        seed=budget.seed,
        **changed,
    )
    found = reinforce.train(config, progress=False, bundle=bundle, clock=clock)
    drawn = canvases_of_loop(config, len(found.history))
    return Contender(found.policies, canvases=drawn, seconds=found.seconds)


def canvases_of_loop(config: reinforce.Config, iterations: int) -> int:
    """Number of canvases that the policy of a finished run has sampled."""
    warmup, updates = config.discriminator_warmup, config.discriminator_updates
    if config.fake_pool:
        rollouts = -(-warmup // max(1, updates)) + iterations
    else:
        rollouts = warmup + (updates + 1) * iterations
    return rollouts * config.canvases


def in_rounds(budget: Budget, bundle: Bundle, settings: Mapping[str, Any]) -> Contender:
    """Learning in rounds."""
    config = rounds.Config(
        env=budget.env, rounds=10**9, seconds=budget.seconds, seed=budget.seed, **settings
    )
    found = rounds.train(config, progress=False, bundle=bundle, clock=clock)
    drawn = config.discriminator_canvases + config.canvases * (len(found.history) - 1)
    return Contender(found.policies, canvases=drawn, seconds=found.seconds)


# --- what is paid when samples are drawn ---


def resampled(budget: Budget, bundle: Bundle, settings: Mapping[str, Any]) -> Contender:
    """Of several canvases that the prior draws one is kept, by exp(score).

    The discriminator learns for the whole budget, on 8,000 canvases that are never drawn again.
    """
    start, candidates = clock(), settings["candidates"]
    config = rounds.Config(env=budget.env, seed=budget.seed)
    rate = settings["learning_rate"]
    config = dataclasses.replace(
        config, discriminator=dataclasses.replace(config.discriminator, learning_rate=rate)
    )
    state = TrainState(config, bundle)
    adversary, size = state.adversary, config.discriminator_batch
    fakes = state.canvases(state.draw(config.discriminator_canvases))
    average = state.frozen(adversary.net)
    while clock() < start + budget.seconds:
        adversary.update(state.real.sample_inputs(size), fakes.sample_inputs(size))
        average_into(average, adversary.net, config.discriminator_ema)

    def draw(count: int, seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        grids = draw_from(bundle.priors, bundle, count * candidates, generator)
        scores = score(average, bundle.vqvae, grids, adversary.input)
        return resample(grids, scores, candidates, generator)

    return Contender(draw=draw, canvases=config.discriminator_canvases, seconds=clock() - start)


def draw_from(
    priors: Sequence[Any], bundle: Bundle, count: int, generator: torch.Generator
) -> list[Tensor]:
    """Whole canvases of priors, int64 (count, h, w) a level."""
    empty = bundle.layout.empty_grids(count)
    return joint.sample(priors, empty, generator=generator, batch=TOGETHER)


# --- Stable-Baselines3 ---


def sb3(budget: Budget, bundle: Bundle, settings: Mapping[str, Any]) -> Contender:
    """An algorithm of Stable-Baselines3 or its contributions, stopped by the clock."""
    from agents.sb3.config import Config
    from agents.sb3.policy import PixelCNNPolicy
    from agents.sb3.train import build, sample_canvases
    from benchmarks.leaderboard.stopped import OutOfTime

    changed = dict(settings)
    algorithm = changed.pop("algo")
    start = clock()
    config = Config(env=budget.env, bundle=budget.bundle, seed=budget.seed, **changed)
    model, callbacks = build(algorithm, config)
    model.learn(2**62, callback=[OutOfTime(clock, start + budget.seconds), *callbacks])
    seconds, drawn = clock() - start, model.num_timesteps // bundle.layout.length
    if isinstance(model.policy, PixelCNNPolicy):
        return Contender(list(model.policy.priors.cpu()), canvases=drawn, seconds=seconds)

    def draw(count: int, seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return in_batches(partial(sample_canvases, model, bundle), count)

    return Contender(draw=draw, canvases=drawn, seconds=seconds)


def in_batches(write: Callable[[int], list[Tensor]], count: int) -> list[Tensor]:
    """Canvases, int64 (count, h, w) a level, of which at most :data:`TOGETHER` are written at once.

    Args:
        write: Called with a number of canvases, gives them.
        count: Number of all canvases.
    """
    parts = [write(min(TOGETHER, count - first)) for first in range(0, count, TOGETHER)]
    return [torch.cat(level) for level in zip(*parts, strict=True)]


# --- the table ---


def _rates(*rates: float, **settings: Any) -> tuple[Mapping[str, Any], ...]:
    return tuple({**settings, "learning_rate": rate} for rate in rates)


_ROUND = {"canvases": 10_000, "discriminator_canvases": 2_500, "discriminator_updates": 400,
          "discriminator_warmup": 600, "updates": 120}  # fmt: skip

ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("real data", "canvases of the training set", real_data, learns=False),
        Entry("random codes", "every code as likely as any other", random_codes, learns=False),
        Entry("MLE prior", "the bundle's prior at temperature 1", prior, learns=False),
        Entry("MLE prior, cooled", "at the temperature that the tuning split likes best", prior,
              ({"temperatures": TEMPERATURES},), learns=False),
        Entry("continued MLE", "more maximum likelihood", continued_mle, _rates(3e-4, 1e-4, 1e-3)),
        Entry("continued MLE, noisy context",
              "the same, contexts being sampled in part", continued_mle,
              _rates(3e-4, 1e-4, 1e-3, context_noise=0.2)),
        Entry("MLE, 4 times the parameters",
              "a wider prior from nothing, with ten times the seconds", wide_mle,
              _rates(1e-3, 5e-4, 2e-3, context_noise=0.2)),
        *(Entry(f"resampled, 1 of {k}",
                f"{k} canvases of the prior are drawn for each that a discriminator keeps",
                resampled, _rates(1e-3, 5e-4, 2e-3, candidates=k)) for k in (2, 8, 32)),
        Entry("loop without reward", "REINFORCE, small, every canvas paid alike", loop,
              _rates(1e-3, 3e-4, 2e-3, reward_source="constant")),
        Entry("REINFORCE, paper", "the paper's settings", loop, _rates(4e-6, 4e-5, 4e-4,
              preset="paper")),
        Entry("REINFORCE, small", "the preset for small priors", loop, _rates(1e-3, 3e-4, 2e-3)),
        Entry("RLOO", "returns less the mean of the others, unscaled, no anchor", loop,
              _rates(1e-3, 3e-4, 2e-3, standardise=False, mle_coef=0.0, kl_loss_coef=0.1)),
        Entry("GRPO", "groups that started alike, clipped ratios, KL to the prior", loop,
              _rates(1e-3, 3e-4, 2e-3, baseline="group", group=64, epochs=2, mle_coef=0.0,
                     kl_loss_coef=0.1)),
        Entry("PPO, ours", "the loop with four epochs of clipped ratios", loop,
              _rates(1e-3, 3e-4, 2e-3, epochs=4)),
        Entry("rounds", "signed importance weights, an exact KL, an anchor", in_rounds,
              _rates(1e-3, 3e-4, 2e-3, **_ROUND)),
        Entry("rounds, larger", "the same with four times as many canvases a round", in_rounds,
              _rates(1e-3, 3e-4, 2e-3, canvases=40_000)),
        Entry("discriminator-weighted MLE", "likelihood of canvases weighted by exp(score)",
              in_rounds, _rates(1e-3, 3e-4, 2e-3, **_ROUND, signed=False, kl_coef=0.0,
                                mle_coef=0.0)),
        Entry("cross-entropy method", "likelihood of the tenth that scores best", in_rounds,
              _rates(1e-3, 3e-4, 2e-3, **_ROUND, signed=False, kl_coef=0.0, mle_coef=0.0,
                     elites=0.1)),
        Entry("SB3's PPO", "the prior as its policy", sb3, ({"algo": "ppo"},
              {"algo": "ppo", "kl_coef": 1.0}, {"algo": "ppo", "kl_coef": 4.0})),
        Entry("SB3's A2C", "the prior as its policy", sb3, ({"algo": "a2c"},
              {"algo": "a2c", "kl_coef": 1.0}, {"algo": "a2c", "kl_coef": 4.0})),
        Entry("SB3's TRPO", "the prior as its policy", sb3, ({"algo": "trpo"},
              {"algo": "trpo", "kl_coef": 1.0}, {"algo": "trpo", "kl_coef": 4.0})),
        Entry("MaskablePPO from nothing", "SB3's own policy, which knows no prior", sb3,
              _rates(3e-4, 1e-4, 1e-3, algo="maskable-ppo")),
    )
}  # fmt: skip
