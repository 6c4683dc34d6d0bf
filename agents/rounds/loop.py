"""Learning in rounds: draw many canvases, weight them by a discriminator, learn from them.

The whole algorithm is :func:`train`, to be read from top to bottom; what it calls stands below it,
in the order of a round. docs/rounds.md derives it and names its sources.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agents.rounds.config import Config
from agents.rounds.losses import (
    effective_sample_size,
    elite_weights,
    exact_kl,
    importance_weights,
    policy_losses,
    proposal,
)
from agents.rounds.run import Run
from agents.rounds.state import MEASURED, Grids, TrainState
from agents.training import finite
from agents.training.discriminator import auc
from agents.training.files import Row
from agents.training.optimise import average_into
from agents.training.result import Result
from ral_env import bundle as bundles
from ral_env.nets import joint

TOGETHER = 64  # canvases that are scored, or measured, together


@dataclass(frozen=True)
class Pool:
    """Canvases that the policy drew, and their importance weights.

    Args:
        grids: int64 codes (N, h, w), a grid a level.
        weights: (N,), float64, their mean is 1.
        chance: of each to be among a batch, (N,), see :func:`agents.rounds.losses.proposal`.
    """

    grids: Grids
    weights: Tensor
    chance: Tensor


def train(
    config: Config,
    out: Path | str | None = None,
    progress: bool = True,
    watch: Callable[[int, Sequence[Any]], Row] | None = None,
    bundle: bundles.Bundle | None = None,
    resume: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Result:
    """Fine-tune a bundle's priors, all levels together.

    Args:
        config: the settings.
        out: folder for config.json, progress.csv, TensorBoard events, sample grids, a checkpoint of
            each round and, at the end, the fine-tuned bundle (``out/bundle``) and a row of results
            (metrics.csv); Ctrl-C, SIGTERM and SIGHUP end the run at once, with the bundle of the
            last whole round alone. None writes nothing.
        progress: whether to show a progress bar.
        watch: called after every round with its number and the policies as they would be returned;
            what it returns is logged with the other figures.
        bundle: a loaded bundle, in place of ``config.bundle``. Of nets in it that have no config,
            ``out`` gets the fine-tuned weights alone.
        resume: go on with the run in ``out`` after its last whole round. On the CPU the end is, to
            the bit, that of a run that was never cut.
        clock: what seconds are counted by, such as ``time.process_time``.

    Raises:
        ValueError: if a setting, the bundle, or a score is bad; if ``out`` holds a run already, or,
            to resume, none, or one of other settings.
        NotFiniteError, DiskError: if it diverges, or ``out`` cannot be written to.
    """
    state = TrainState(config, bundle)
    with Run(state, out, resume, clock) as run:
        run.begin()
        with run.until_stopped(), run.bar(progress), finite.naming_last_good(run.checkpoint_file):
            if not run.history:
                fakes = draw(state, config.discriminator_canvases, run)
                train_discriminator(state, fakes, config.discriminator_warmup, run)
                run.log({"round": 0} | measure(state, run))

            while state.iteration < config.rounds and not run.is_out_of_time():
                row: Row = {"round": state.iteration + 1}

                # 1. The policy draws canvases, the discriminator learns from some of them against
                #    reals, and its scores of the others tell how much rarer they are than reals.
                pool, figures = weighted_pool(state, run)
                row |= figures

                # 2. The policy learns from the others as if they had been drawn as often as reals
                #    are, and is held to the policy that drew them.
                row |= update_policy(state, pool, run)

                # 3. Measure, log, checkpoint.
                state.iteration += 1
                row |= measure(state, run)
                if watch:
                    row |= watch(state.iteration, list(state.policies))
                run.log(row)

            if run.folder.writes:
                # The discriminator that the bundle gets knows the policy that it comes with.
                _, run.last_figures = weighted_pool(state, run)
        return run.finish()


# --- a round, in its order ---


def weighted_pool(state: TrainState, run: Run) -> tuple[Pool, Row]:
    """Canvases that the policy draws, weighted by a discriminator that was trained on others.

    Returns:
        The canvases; and the means of the losses of the discriminator, the mean scores of held-out
        reals (``score_real``) and of the canvases (``score_fake``), the ``auc`` between them,
        ``score_train`` of reals that it was trained on, the effective sample size (``ess``, a share
        of the canvases) and the largest weight (``largest_weight``).
    """
    config = state.config
    grids = draw(state, config.canvases, run)
    shown = config.discriminator_canvases
    fakes, pool = [grid[:shown] for grid in grids], [grid[shown:] for grid in grids]
    losses = train_discriminator(state, fakes, config.discriminator_updates, run)
    with run.timings("scoring"):
        fake_maps = score_maps(state, pool)
        real_maps = score_maps(state, state.held_out.grids)
        train_maps = score_maps(state, [grid[:MEASURED] for grid in state.real.grids])
    state.adversary.normaliser.update(real_maps, fake_maps[: len(real_maps)])
    real, fake, known = (maps.mean((1, 2, 3)) for maps in (real_maps, fake_maps, train_maps))
    scores = fake.cpu()
    if config.reward_source == "shuffled":
        scores = scores[torch.randperm(len(scores), generator=state.generator)]
    elif config.reward_source == "constant":
        scores = torch.zeros_like(scores)
    if config.elites:
        weights = elite_weights(scores, config.elites)
    else:
        weights = importance_weights(scores, config.clip_quantile)
    chance = proposal(weights, config.proposal_floor)
    return Pool(pool, weights, chance), losses | {
        "auc": auc(real, fake),
        "score_real": real.mean().item(),
        "score_fake": fake.mean().item(),
        "score_train": known.mean().item(),
        "ess": effective_sample_size(weights),
        "largest_weight": weights.max().item(),
    }


def draw(state: TrainState, count: int, run: Run) -> list[Tensor]:
    """Canvases that the policy writes, int64 (count, h, w) a level."""
    run.show("drawing")
    with run.timings("drawing"):
        return state.draw(count)


def train_discriminator(state: TrainState, grids: Grids, updates: int, run: Run) -> Row:
    """Updates of the discriminator on reals against canvases; returns the means of its losses.

    It goes on from its running average of the last round, with a new Adam, and its running average
    of this round is what it becomes.
    """
    config, adversary = state.config, state.adversary
    fakes = state.canvases(grids)
    adversary.renew_optimizer()
    average = state.frozen(adversary.net)
    sums = Row()
    with run.timings("discriminator"):
        for step in range(updates):
            reals = state.real.sample_inputs(config.discriminator_batch)
            losses = adversary.update(reals, fakes.sample_inputs(config.discriminator_batch))
            average_into(average, adversary.net, config.discriminator_ema)
            add(sums, losses)
            run.show(f"discriminator {step + 1}/{updates}")
    adversary.net.load_state_dict(average.state_dict())
    return {name: total / updates for name, total in sums.items()}


@torch.no_grad()
def score_maps(state: TrainState, grids: Grids) -> Tensor:
    """The discriminator's raw score maps (N, 1, h', w') of codes (N, h, w), a grid a level."""
    parts = zip(*(grid.split(TOGETHER) for grid in grids), strict=True)
    return torch.cat([state.adversary.net(state.adversary.inputs(part)) for part in parts])


def update_policy(state: TrainState, pool: Pool, run: Run) -> Row:
    """Policy updates on weighted canvases; the policies of ``state`` become the running average.

    Returns:
        The means of the named losses, and ``kl``, KL(the policy that drew || the new one), nats per
        canvas.
    """
    config, old = state.config, state.policies
    policies = state.frozen(old)
    learning = nn.ModuleList(policies[state.levels]).requires_grad_()
    average = state.frozen(old)
    optimizer = torch.optim.Adam(learning.parameters(), lr=config.learning_rate, betas=config.betas)
    remedy = f"lower its learning rate ({config.learning_rate}) or raise kl_coef ({config.kl_coef})"
    sums = Row()
    with run.timings("learning"):
        for step in range(config.updates):
            done = step / config.updates
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * (1 - (1 - config.final_rate) * done)
            losses = batch_losses(state, policies, old, pool)
            if config.mle_coef:
                losses["mle_loss"] = config.mle_coef * likelihood_loss(state, policies)
            finite.check_losses(losses, "the policy's", remedy)
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            finite.step(learning, optimizer, "the policy's", remedy)
            average_into(average, policies, config.ema)
            add(sums, {name: loss.item() for name, loss in losses.items()})
            run.show(f"policy {step + 1}/{config.updates}")
    with run.timings("measuring"), torch.no_grad():
        apart = [
            exact_kl(state.log_probs(old, part), state.log_probs(average, part))
            for part in zip(*(grid[:MEASURED].split(TOGETHER) for grid in pool.grids), strict=True)
        ]
    old.load_state_dict(average.state_dict())  # in place: the checkpoint holds this module
    row = {name: total / config.updates for name, total in sums.items()}
    return row | {"kl": torch.cat(apart).mean().item()}


def batch_losses(state: TrainState, policies: Any, old: Any, pool: Pool) -> dict[str, Tensor]:
    """The named losses of ``policies`` on a batch of the pool; ``old`` drew it."""
    config = state.config
    index = torch.multinomial(
        pool.chance, config.batch, replacement=True, generator=state.generator
    )
    coefficients = pool.weights[index] - (1 if config.signed else 0)
    importance = 1 / (len(pool.chance) * pool.chance[index])
    grids = [grid[index] for grid in pool.grids]
    with torch.no_grad():
        before = state.log_probs(old, grids)
    return policy_losses(
        state.log_probs(policies, grids),
        before,
        grids[state.levels],
        coefficients.to(before[0]),
        importance.to(before[0]),
        config.kl_coef,
    )


def likelihood_loss(state: TrainState, policies: Any) -> Tensor:
    """Nats per real code of the levels that learn, with dropout as in pretraining: few real codes
    are soon known by heart."""
    real = state.real.sample_canvases(state.config.batch)
    policies.train()
    levels = joint.log_prob(policies, real)[state.levels]
    policies.eval()
    return -torch.cat([level.flatten() for level in levels]).mean()


@torch.no_grad()
def measure(state: TrainState, run: Run) -> Row:
    """``entropy`` of the policies, and ``forward_nll`` of held-out reals: nats per canvas."""
    with run.timings("measuring"):
        run.drawn = state.draw(min(MEASURED, state.config.canvases))
        nll = [-joint.total_log_prob(state.policies, g) for g in (run.drawn, state.held_out.grids)]
    return {"entropy": nll[0].mean().item(), "forward_nll": nll[1].mean().item()}


def add(sums: Row, values: Row) -> None:
    """Add named figures to their sums so far."""
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + value
