"""Reinforced adversarial learning: REINFORCE for priors, against a discriminator that learns too.

The whole algorithm is :func:`train`, to be read from top to bottom; what it calls stands below it,
in the order of an iteration. The defaults are the paper's (section 4.4). They hardly move a small
prior, which the preset ``small`` is for; each of its departures is named beside it, in
:mod:`agents.reinforce.presets`. REINFORCE's relatives are settings of the same loop: RLOO and
GRPO are baselines, PPO is several epochs of clipped updates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.reinforce.config import Config
from agents.reinforce.losses import advantages, policy_losses, returns
from agents.reinforce.run import Run
from agents.reinforce.state import Grids, Rollout, TrainState
from agents.training import finite
from agents.training.discriminator import auc
from agents.training.files import Row
from agents.training.optimise import average_into
from agents.training.progress import ProgressBar
from agents.training.result import Result
from agents.training.timings import Timings
from ral_env import bundle as bundles
from ral_env import starts
from ral_env.nets import PixelCNN, joint
from ral_env.nets.noise import SharedGenerator


def train(
    config: Config,
    out: Path | str | None = None,
    progress: bool = True,
    watch: Callable[[int, Sequence[Any]], Row] | None = None,
    watch_every: int = 50,
    bundle: bundles.Bundle | None = None,
    resume: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Result:
    """Fine-tune a bundle's priors, all levels together, on the process that samples from them.

    Several processes, started by ``torchrun``, share a rollout and make the update of one.

    Args:
        config: the settings.
        out: folder for config.json, progress.csv, TensorBoard events, sample grids, checkpoints
            and, at the end, the fine-tuned bundle (``out/bundle``) and a row of results; Ctrl-C,
            SIGTERM and SIGHUP end the run early, with the bundle alone. None writes nothing.
        progress: whether to show a progress bar.
        watch: called every ``watch_every`` iterations with the iteration and the policies as they
            would be returned; what it returns is logged with the other figures.
        bundle: a loaded bundle, in place of ``config.bundle``. Of nets in it that have no config,
            ``out`` gets the fine-tuned weights alone.
        resume: go on with the run in ``out`` from its last checkpoint. On the CPU the end is, to
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
        with run.signals, run.bar(progress) as bar, finite.naming_last_good(run.checkpoint_file):
            warm_up(state, run, bar)

            while not run.is_over():
                row: Row = {"iteration": state.iteration + 1, "seconds": run.seconds}

                # 1. The discriminator learns, on reconstructed real images against the policy's.
                for _ in range(config.discriminator_updates):
                    row |= update_discriminator(state, run.timings)

                # 2. The policy writes a batch of canvases. What does the discriminator make of
                #    them, which it has never seen?
                rollout = sample_rollout(state, run.timings)
                real_maps, fake_maps = score(state, rollout, run.timings)
                state.aucs.append(auc(real_maps.mean((1, 2, 3)), fake_maps.mean((1, 2, 3))))
                row["auc"] = float(np.mean(state.aucs))
                if config.fake_pool:
                    state.pool.append(rollout.fakes)

                # 3. Its scores, normalised by the largest of this batch of reals and fakes, pay;
                #    or a reward_fn does, which the environments know.
                if config.reward_fn is None:
                    state.adversary.normaliser.update(real_maps, fake_maps)
                    state.adversary.score_in(state.envs)
                rewards, step_rewards = play(state, rollout, fake_maps, run.timings)
                row["reward"] = rewards.mean().item()
                row["reward_scale"] = state.adversary.normaliser.scale

                # 4. Policy gradient (Eq. 2). A blind discriminator teaches nothing.
                row["gated"] = float(row["auc"] < config.gate_auc)
                set_learning_rate(state, run.rate())
                advantage = compute_advantages(state, step_rewards)
                row |= update_policy(state, rollout, advantage, run.timings, learn=not row["gated"])

                # 5. Look at what would be returned, log, checkpoint.
                state.iteration += 1
                if state.guard and state.iteration % config.guard_every == 0:
                    with run.timings("guard"):
                        row |= state.guard.look(state.averages)
                row |= run.timings.take()
                if watch and state.iteration % watch_every == 0:
                    row |= watch(state.iteration, state.averages)
                row = state.processes.mean(row)
                run.log(row, rollout)
                if state.iteration % config.checkpoint_every == 0:
                    run.save()
                run.show(bar, row)
            run.save()
        return run.finish()


# --- an iteration, in its order ---


def warm_up(state: TrainState, run: Run, bar: ProgressBar) -> None:
    """Let the discriminator learn before the policy does, or go on with that.

    It takes minutes at the paper's sizes: there are checkpoints inside it, too.
    """
    config, timings = state.config, run.timings
    for step in range(state.warmup_updates, config.discriminator_warmup):
        if run.is_asked_to_stop():
            return
        if step and step % config.checkpoint_every == 0:
            run.save()
        if config.fake_pool and step % max(1, config.discriminator_updates) == 0:
            state.pool.append(sample_rollout(state, timings).fakes)
        update_discriminator(state, timings)
        state.warmup_updates = step + 1
        bar.tell(f"discriminator warm-up {step + 1}/{config.discriminator_warmup}")
    if not state.iteration:
        run.save()


def update_discriminator(state: TrainState, timings: Timings) -> dict[str, float]:
    """One update on real canvases against a rollout of the pool, or a fresh one: named losses."""
    if not state.config.fake_pool or not state.pool:
        state.pool.append(sample_rollout(state, timings).fakes)
    with timings("discriminator"):
        index = int(torch.randint(len(state.pool), (1,), generator=state.generator))
        fakes = state.pool[index]
        real = state.real.sample_inputs(state.config.canvases, like=fakes.grids)
        return state.adversary.update(real, fakes.inputs)


def sample_rollout(state: TrainState, timings: Timings) -> Rollout:
    """Begin episodes and sample every code that they are to write."""
    config, layout = state.config, state.layout
    mode, rows = starts.draw(state.starts, layout, config.start, None, state.envs.min_rows)
    options: dict[str, Any] = {"start": mode, "rows": rows}
    if mode == "continue":
        shape = (config.canvases // config.group,)
        index = torch.randint(len(state.real), shape, generator=state.generator)
        index = state.processes.shard(index.repeat_interleave(config.group))
        options["codes"] = layout.flatten([grid[index] for grid in state.real.grids])
    with timings("environment"):
        start, _ = state.envs.reset(options=options)
    with timings("sampling"):
        codes = torch.from_numpy(start.astype(np.int64)).to(state.processes.device)
        prefixes = layout.unflatten(codes, int(layout.heights(start)[0]))
        grids = joint.sample(state.policies, prefixes, generator=_noise(state))
    canvas = start.copy()
    canvas[:, layout.head(prefixes[0].shape[1])] = flat(grids).cpu().numpy()
    with timings("scoring"):
        fakes = state.fakes(grids)
    return Rollout(start, canvas, fakes, flat(prefixes) == layout.empty)


def _noise(state: TrainState) -> Any:
    """The generator that samples are drawn with, shared by all processes that train together."""
    processes = state.processes
    # Priors that are not ours know no shared generator.
    if processes.count == 1 or not all(isinstance(net, PixelCNN) for net in state.policies):
        return state.noise
    return SharedGenerator(state.noise, processes.rank, processes.count)


def score(state: TrainState, rollout: Rollout, timings: Timings) -> tuple[Tensor, Tensor]:
    """Raw score maps (B, 1, h', w') of held-out reals and of a rollout, of all processes."""
    with timings("scoring"):
        real = state.held_out.sample_inputs(state.config.canvases, like=rollout.fakes.grids)
        maps = state.adversary.score_maps(real, rollout.fakes.inputs)
    gather = state.processes.gather
    return gather(maps[0]), gather(maps[1])


def play(
    state: TrainState, rollout: Rollout, score_maps: Tensor, timings: Timings
) -> tuple[Tensor, Tensor]:
    """Finish a rollout's episodes: rewards (B,), and what each step earned, (B, T).

    Args:
        score_maps: raw ones of the canvases of all processes, as :func:`score` gives them: they
            need not be decoded and scored once more.
    """
    envs, codes = state.envs, rollout.canvas
    with timings("environment"):
        if state.config.step_by_step:
            rewards, infos = np.zeros(len(codes)), {}
            for cell in np.flatnonzero(rollout.start[0] == state.layout.empty):
                _, rewards, _, _, infos = envs.step(codes[:, cell])
        else:
            own = state.config.reward_fn is not None
            score_map = None if own else state.processes.shard(score_maps)
            _, rewards, _, _, infos = envs.complete(codes, score_map)
    step_rewards = torch.from_numpy(infos["step_rewards"]).to(state.processes.device)
    return torch.from_numpy(rewards), step_rewards


def compute_advantages(state: TrainState, step_rewards: Tensor) -> Tensor:
    """Advantages (B, T) of this process's canvases; their baseline is of all processes'."""
    config = state.config
    q = state.processes.gather(returns(step_rewards, config.gamma))
    mean = q.mean().item()
    before = mean if state.mean_return is None else state.mean_return
    whole = advantages(q, config.baseline, config.standardise, config.group, before)
    state.mean_return = 0.9 * before + 0.1 * mean
    return state.processes.shard(whole)


def update_policy(
    state: TrainState, rollout: Rollout, advantage: Tensor, timings: Timings, learn: bool = True
) -> Row:
    """Policy gradient steps on a rollout, from teacher-forced passes.

    Args:
        advantage: (B, T), of the codes that were sampled.
        learn: whether to make the steps, or only to measure.

    Returns:
        The named losses of the first epoch, ``nats_per_code`` of the last one's real codes,
        ``entropy`` and, with a reference, ``kl``, nats per canvas.
    """
    config, grids, sampled = state.config, rollout.fakes.grids, rollout.sampled
    row: Row = {}
    with timings("learning"), torch.set_grad_enabled(learn):
        by_cell = torch.zeros(sampled.shape, device=sampled.device)
        by_cell[sampled] = advantage.flatten()
        cells = sampled & state.trainable_mask(grids)
        old = reference = None
        if config.kl_loss_coef:
            with torch.no_grad():
                reference = flat(joint.log_prob(state.reference, grids))
        for epoch in range(config.epochs):
            log_prob = flat(joint.log_prob(state.policies, grids))
            if old is None:
                old = log_prob.detach()
                row["entropy"] = -(old * sampled).sum().item() / len(sampled)
                if reference is not None:
                    row["kl"] = ((old - reference) * sampled).sum().item() / len(sampled)
            losses = policy_losses(log_prob, old, by_cell, cells, reference, config)
            if epoch == 0:
                row |= {name: loss.item() for name, loss in losses.items()}
            if config.mle_coef:
                nats = likelihood_loss(state)
                row["nats_per_code"] = nats.item()
                losses["mle_loss"] = config.mle_coef * nats
            finite.check_losses(losses, "the policy's", _remedy(config))
            if learn:
                _step(state, losses)
    return row


def likelihood_loss(state: TrainState) -> Tensor:
    """Nats per real code, with dropout as in pretraining: few real codes are soon learnt by
    heart."""
    real = state.real.sample_canvases(state.config.canvases)
    state.learning.train()
    nats = -flat(joint.log_prob(state.policies, real))[:, state.trainable_mask(real)].mean()
    state.learning.eval()
    return nats


def _step(state: TrainState, losses: dict[str, Tensor]) -> None:
    state.optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    state.processes.average_gradients(state.learning)
    finite.step(state.learning, state.optimizer, "the policy's", _remedy(state.config))
    average_into(state.averages, state.policies, state.config.ema)


def _remedy(config: Config) -> str:
    return f"lower learning_rate={config.learning_rate}"


def set_learning_rate(state: TrainState, share: float) -> None:
    """Let the policy learn at this share of its learning rate."""
    for group in state.optimizer.param_groups:
        group["lr"] = state.config.learning_rate * share


def flat(grids: Grids) -> Tensor:
    """Grids (B, rows, w) of every level, side by side in the order of the canvas: (B, cells)."""
    return torch.cat([grid.flatten(1) for grid in grids], 1)
