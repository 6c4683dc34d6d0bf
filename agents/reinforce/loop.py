"""Reinforced adversarial learning: REINFORCE for priors, against a discriminator that learns too.

The whole algorithm is :func:`train`, to be read from top to bottom. The defaults are the paper's
(section 4.4). They hardly move a small prior, so ``--preset small`` is what works at 8x8 codes;
each of its departures is named beside it, in :data:`PRESETS`. REINFORCE's relatives are settings of
the same loop: RLOO and GRPO are baselines, PPO is several epochs of clipped updates.

    ral train --env RALDigits-v0 --preset small
    ral train --env RALDigits-v0 --preset small --resume            # goes on after kill -9
    torchrun --nproc-per-node 8 -m agents.reinforce -- --env RALCelebA128-v0 --device cuda

(The lone dashes keep torchrun from taking ``--start`` for an option of its own.)
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import ral_env  # noqa: F401  registers the ids
from agents.evaluation.evaluator import Row, results
from agents.training.checkpoint import Checkpoint
from agents.training.discriminator import DiscriminatorTrainer, DiscriminatorTraining, auc
from agents.training.optimise import average_into
from agents.training.processes import Processes
from agents.training.run_folder import Run
from ral_env import bundle as bundles
from ral_env import starts
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.nets import PatchGAN, PatchGANConfig, PixelCNN, joint, represent
from ral_env.nets.cache import SharedGenerator
from ral_env.reward import NORMALISERS
from ral_env.tasks import expect_ours

Grids = list[Tensor]  # codes, one grid a level, top first
KEPT_BYTES = 2**28  # of real canvases, decoded
LEVELS = {"both": slice(None), "top": slice(0, 1), "bottom": slice(1, None)}


@dataclass(frozen=True)
class Config:
    """Settings of the loop. Defaults are the paper's.

    Args:
        env: id of the environment.
        bundle: another bundle than the id's own.
        reward: ``single`` (Eq. 6), ``intermediate`` (section 4.2), or ``rowwise``.
        reward_source: ``discriminator``, or a control arm: ``constant``, ``random``, ``shuffled``.
        start: how episodes start; ``partial`` is the paper's partial generation (section 4.3).
        levels: whose priors learn: ``both`` is all levels in the same iteration; ``top`` and
            ``bottom`` (all but the top) leave the other as it is.
        iterations: batches of episodes that the policy learns from.
        seconds: stop after this much time instead, if it comes first.
        batch: canvases an iteration, over all processes together.
        group: canvases that start from the same real rows.
        learning_rate: of the policy's Adam.
        final_rate: the learning rate falls linearly to this share of itself.
        betas: of the policy's Adam.
        gamma: discount of the return (Eq. 3).
        warmup: discriminator updates before the first policy update.
        discriminator_updates: discriminator updates for each iteration.
        fake_pool: fakes of a discriminator update come from the last so many batches of the
            policy's own episodes; 0 samples a fresh batch for each, as the paper does.
        discriminator_input: ``image``, or ``codes`` for codebook vectors.
        discriminator_net: sizes of a new discriminator; none goes on from the bundle's.
        normaliser: of scores: ``batch``, the largest of each batch of reals and fakes, or
            ``running``, a moving average of that.
        discriminator: how it learns; its ``loss`` is wgan-gp, logistic or hinge.
        baseline: what is subtracted from returns. ``none``; ``running-mean``, of the batches
            before; ``leave-one-out``, the mean of the batch's other canvases (RLOO: Ahmadian et
            al. 2024, arXiv 2402.14740); ``group``, the mean of the canvases that started alike
            (GRPO: Shao et al. 2024, arXiv 2402.03300).
        standardise: divide advantages by their standard deviation over the batch, or over each
            group.
        kl_loss_coef: weight of KL(policy || MLE prior), nats per code, on the states that the
            policy comes to: its gradient is estimated by half the squared log-ratio (J. Schulman,
            "Approximating KL Divergence", 2020).
        ent_coef: weight of the policy's entropy there, nats per code (Williams & Peng 1991).
        mle_coef: weight of a maximum-likelihood term on real codes (nats per code).
        epochs: policy updates from each batch of episodes. With several, ratios are clipped (PPO:
            Schulman et al. 2017, arXiv 1707.06347).
        clip: how far a ratio may go from 1 before it is clipped.
        ema: decay of the running average of the policy, which is what is returned; 0 is none.
        gate_auc: update the policy only while the discriminator's AUC on fakes it has not
            trained on and on held-out reals (mean of the last 20 iterations) is at least this.
        step_by_step: play episodes code by code through ``step`` instead of ``complete``.
        device: where all networks run.
        checkpoint_every: iterations between checkpoints.
        seed: of everything.
    """

    env: str = "RALFaces32-v0"
    bundle: str | None = None
    reward: Literal["single", "intermediate", "rowwise"] = "single"
    reward_source: Literal["discriminator", "constant", "random", "shuffled"] = "discriminator"
    start: Literal["full", "continue", "scratch", "partial"] = "partial"
    levels: Literal["both", "top", "bottom"] = "both"
    iterations: int = 1000
    seconds: float | None = None
    batch: int = 16
    group: int = 1
    learning_rate: float = 4e-6
    final_rate: float = 1.0
    betas: tuple[float, float] = (0.5, 0.999)
    gamma: float = 0.99
    warmup: int = 100
    discriminator_updates: int = 5
    fake_pool: int = 0
    discriminator_input: Literal["image", "codes"] = "image"
    discriminator_net: PatchGANConfig | None = field(
        default_factory=lambda: PatchGANConfig(layers=3)
    )
    normaliser: Literal["batch", "running"] = "batch"
    discriminator: DiscriminatorTraining = field(default_factory=DiscriminatorTraining)
    baseline: Literal["none", "running-mean", "leave-one-out", "group"] = "none"
    standardise: bool = False
    kl_loss_coef: float = 0.0
    ent_coef: float = 0.0
    mle_coef: float = 0.0
    epochs: int = 1
    clip: float = 0.2
    ema: float = 0.0
    gate_auc: float = 0.0
    step_by_step: bool = False
    device: str = "cpu"
    checkpoint_every: int = 50
    seed: int = 0


PRESETS: dict[str, Config] = {
    "paper": Config(),
    "small": Config(
        start="full",  # 64 codes are few: partial generation saves little and adds variance
        batch=64,  # 16 canvases are too few to see a small difference
        learning_rate=1e-3,  # 4e-6 does not move a prior of 0.1 M parameters in minutes
        final_rate=0.1,  # a policy gradient's noise does not shrink by itself
        gamma=1.0,  # the canvas is judged as a whole
        discriminator_input="codes",  # sees more than the image, at a fraction of the work
        discriminator_net=None,  # go on from the bundle's, which has seen this prior
        discriminator=DiscriminatorTraining(
            loss="logistic",  # a density ratio: its policy gradient descends the reverse KL
            learning_rate=1e-3,
            r1=0.1,  # few reals: a gradient penalty and augmentation against learning by heart
            shift=1,
            drop=0.05,
        ),
        warmup=50,
        discriminator_updates=3,
        fake_pool=4,  # the discriminator looks at each batch of fakes more than once
        baseline="leave-one-out",  # less variance, no bias
        standardise=True,
        mle_coef=0.3,  # an anchor: without it a small prior loses modes, whatever the reward
        ema=0.99,
        gate_auc=0.52,  # a blind discriminator's scores are noise
    ),
}


@dataclass
class Result:
    """What a run leaves: the policies, one a level and top first (their averages, with ``ema``),
    the discriminator, the rows."""

    policies: list[PixelCNN]
    discriminator: PatchGAN
    history: list[Row]
    seconds: float
    interrupted: bool = False


def _flat(grids: Grids) -> Tensor:
    """Grids (B, rows, w) of every level, side by side in the order of the canvas: (B, cells)."""
    return torch.cat([grid.flatten(1) for grid in grids], 1)


def returns(step_rewards: Tensor, gamma: float) -> Tensor:
    """Q(s_t, a_t) = sum over k > t of gamma^(k-t-1) r_k (Eq. 3): (B, T) to (B, T).

    ``step_rewards[:, t]`` is the paper's r_t+1, what the code written at step t has earned.
    """
    q = torch.empty_like(step_rewards)
    tail = torch.zeros_like(step_rewards[:, 0])
    for t in reversed(range(step_rewards.shape[1])):
        tail = step_rewards[:, t] + gamma * tail
        q[:, t] = tail
    return q


def advantages(
    q: Tensor, baseline: str, standardise: bool, group: int = 1, before: float = 0.0
) -> Tensor:
    """Returns (B, T) less their baseline, scaled if asked for.

    Args:
        group: canvases that started alike; they stand side by side.
        before: mean return of the batches before this one.
    """
    if baseline == "group":
        groups = q.unflatten(0, (-1, group))  # (B / group, group, T)
        groups = groups - groups.mean(1, keepdim=True)
        if standardise:
            groups = groups / groups.std((1, 2), keepdim=True).clamp(min=1e-6)
        return groups.flatten(0, 1)
    if baseline == "leave-one-out":
        # Q_i - mean of the others = (Q_i - mean of all) * B / (B - 1); unbiased: the others'
        # returns do not depend on canvas i's codes.
        q = (q - q.mean(0)) * (len(q) / (len(q) - 1))
    elif baseline == "running-mean":
        q = q - before
    if standardise:
        # A reward that does not vary (the constant arm) has no advantage, not an infinite one.
        q = q / q.std().clamp(min=1e-6)
    return q


def policy_losses(
    log_prob: Tensor,
    old: Tensor,
    advantage: Tensor,
    cells: Tensor,
    reference: Tensor | None,
    config: Config,
) -> dict[str, Tensor]:
    """What the policy minimises, by name: means over the cells that it has written.

    Args:
        log_prob: of the codes, (B, cells), with gradient.
        old: the same when they were sampled.
        advantage: (B, cells).
        cells: bool (B, cells), which of them count.
        reference: log-probs of the MLE prior, for the KL.
    """
    count = cells.sum()
    ratio = (log_prob - old).exp()
    gain = advantage * ratio  # at ratio 1 its gradient is REINFORCE's, Eq. 2
    if config.epochs > 1:
        gain = torch.minimum(gain, advantage * ratio.clamp(1 - config.clip, 1 + config.clip))
    losses = {"policy_loss": -(gain * cells).sum() / count}
    if reference is not None:
        gap = (log_prob - reference) * cells
        losses["kl_loss"] = config.kl_loss_coef * gap.square().sum() / (2 * count)
    if config.ent_coef:
        # The gradient of the entropy is -E[log G grad log G]; a mean over canvases as its baseline.
        own = log_prob.detach() - log_prob.detach().mean(0)
        losses["entropy_loss"] = config.ent_coef * (own * log_prob * cells).sum() / count
    return losses


def play(
    envs: LatentCanvasVectorEnv, canvas: np.ndarray, codes: np.ndarray, step_by_step: bool
) -> tuple[np.ndarray, dict[str, Any]]:
    """Finish the episodes that start at ``canvas`` by writing ``codes``: rewards and infos."""
    if not step_by_step:
        _, rewards, _, _, infos = envs.complete(codes)
        return rewards, infos
    rewards, infos = np.zeros(len(canvas)), {}
    for cell in np.flatnonzero(canvas[0] == envs.layout.empty):
        _, rewards, _, _, infos = envs.step(codes[:, cell])
    return rewards, infos


class Game:
    """The two players and all that must go on exactly when a run is cut: see :meth:`state`."""

    def __init__(self, config: Config, bundle: bundles.Bundle | None):
        _check(config)
        self.config = config
        self.processes = processes = Processes(config.device)
        if config.batch % (processes.count * config.group):
            raise ValueError(
                f"batch={config.batch} cannot be shared by {processes.count} processes in groups "
                f"of {config.group}: choose a multiple of {processes.count * config.group}"
            )
        self.device = processes.device
        self.canvases = config.batch // processes.count  # of this process
        torch.manual_seed(config.seed)
        # All processes draw alike, for the whole batch, and take their own part of it.
        self.generator = torch.Generator().manual_seed(config.seed)  # which codes and fakes
        self.noise = torch.Generator(self.device).manual_seed(config.seed)  # of sampling
        self.starts = np.random.default_rng(config.seed)
        chosen = config.bundle if bundle is None else bundle
        kwargs: dict[str, Any] = {} if chosen is None else {"bundle": chosen}
        expect_ours(config.env)
        self.envs: LatentCanvasVectorEnv = gym.make_vec(
            config.env,
            num_envs=self.canvases,
            reward=config.reward,
            reward_source=config.reward_source,
            autoreset_mode="disabled",
            device=self.device,
            **kwargs,
        ).unwrapped  # type: ignore
        first = config.seed + processes.rank * self.canvases
        self.envs.reset(seed=first)
        self.bundle, self.layout = self.envs.bundle, self.envs.layout
        levels = len(self.bundle.priors)
        if not levels:
            raise ValueError("the bundle has no priors, expected one a level: they are what learns")
        if config.levels == "bottom" and levels == 1:
            raise ValueError("levels='bottom', but the bundle has one level: expected 'both'")
        self.vqvae = copy.deepcopy(self.bundle.vqvae).to(self.device)
        # In eval mode, without dropout: the policy that learns is the one that acts.
        own = [copy.deepcopy(prior).to(self.device).eval() for prior in self.bundle.priors]
        self.policies = own
        self.priors = copy.deepcopy(own)  # as they came, for the KL
        self.averages = copy.deepcopy(own)
        self.policy, self.average = nn.ModuleList(own), nn.ModuleList(self.averages)
        for policy in own:
            policy.requires_grad_(False)
        self.learning = nn.ModuleList(own[LEVELS[config.levels]]).requires_grad_()
        self.optimizer = torch.optim.Adam(
            self.learning.parameters(), lr=config.learning_rate, betas=config.betas
        )
        self.kind = config.discriminator_input
        if config.discriminator_net is not None:
            net = PatchGAN(config.discriminator_net)
        elif self.bundle.discriminator_input != self.kind:
            raise ValueError(
                f"the bundle's discriminator sees {self.bundle.discriminator_input!r}, but "
                f"discriminator_input={self.kind!r}: give discriminator_net to start a new one"
            )
        else:
            net = copy.deepcopy(self.bundle.discriminator)
        self.discriminator = net.to(self.device)
        processes.broadcast(self.discriminator)
        self.trainer = DiscriminatorTrainer(net, config.discriminator, processes)
        self.normaliser = NORMALISERS[config.normaliser](self.bundle.reward_scale)
        self.real: dict[str, Grids] = {
            name: [grid.to(self.device) for grid in self.layout.as_grids(self.bundle.split(name))]
            for name in ("train", "validation")
        }
        self.kept: dict[str, Tensor | None] = {}  # what the discriminator is shown of them
        self.pool: deque[Grids] = deque(maxlen=max(1, config.fake_pool))
        self.aucs: deque[float] = deque(maxlen=20)
        self.mean_return: float | None = None  # of the batches so far
        self.spent: dict[str, float] = defaultdict(float)  # seconds of this iteration, by what

    @property
    def parts(self) -> dict[str, Any]:
        """What learns, by name; each has ``state_dict``."""
        return {
            "policies": self.policy,
            "averages": self.average,
            "optimizer": self.optimizer,
            "discriminator": self.discriminator,
            "discriminator_optimizer": self.trainer.optimizer,
            "normaliser": self.normaliser,
        }

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All else that the next iteration depends on: common to all processes, and this one's."""
        common = {
            "aucs": list(self.aucs),
            "mean_return": self.mean_return,
            "generator": self.generator.get_state(),
            "noise": self.noise.get_state(),
            "starts": self.starts.bit_generator.state,
        }
        own = {
            "pool": [[grid.cpu() for grid in grids] for grids in self.pool],
            "envs": [rng.bit_generator.state for rng in self.envs.rngs],
        }
        return common, own

    def load_state(self, common: dict[str, Any], own: dict[str, Any] | None) -> None:
        self.aucs.extend(common["aucs"])
        self.mean_return = common["mean_return"]
        self.generator.set_state(common["generator"])
        self.noise.set_state(common["noise"])
        self.starts.bit_generator.state = common["starts"]
        if own is None or len(own["envs"]) != self.canvases:
            raise ValueError(
                "the checkpoint was written by another number of processes: start as many again"
            )
        self.pool.extend([grid.to(self.device) for grid in grids] for grids in own["pool"])
        for rng, state in zip(self.envs.rngs, own["envs"], strict=True):
            rng.bit_generator.state = state

    @contextmanager
    def clock(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.spent[f"seconds_{what}"] += time.perf_counter() - start

    def some(self, split: str) -> Tensor:
        """Which canvases of a split make a batch: this process's part of the indices."""
        count = len(self.real[split][0])
        index = torch.randint(count, (self.config.batch,), generator=self.generator)
        return self.processes.shard(index)

    @torch.no_grad()
    def seen(self, grids: Grids) -> Tensor:
        """What the discriminator is shown of them."""
        return represent(self.vqvae, grids, self.kind)

    def seen_real(self, split: str, like: Grids) -> Tensor:
        """What it is shown of a batch of real canvases, cut to as many rows as ``like`` has.

        Whole ones of a small data set are decoded once, not anew for each update.
        """
        index, whole = self.some(split), self.real[split]
        heights = [grid.shape[1] for grid in like]
        if heights != [grid.shape[1] for grid in whole]:
            return self.seen([g[index, :rows] for g, rows in zip(whole, heights, strict=True)])
        if split not in self.kept:
            bytes_each = self.seen([grid[:1] for grid in whole]).nbytes
            self.kept[split] = None
            if bytes_each * len(whole[0]) <= KEPT_BYTES:
                parts = zip(*(grid.split(64) for grid in whole), strict=True)
                self.kept[split] = torch.cat([self.seen(list(part)) for part in parts])
        kept = self.kept[split]
        return self.seen([grid[index] for grid in whole]) if kept is None else kept[index]

    def rollout(self) -> tuple[np.ndarray, Grids, Tensor]:
        """Start episodes and sample every code they are to write.

        Returns the start canvases (B, length), the finished grids (B, rows, w) of those rows that
        the episodes have, and which of their cells, (B, cells), were sampled.
        """
        config, layout = self.config, self.layout
        mode, rows = starts.draw(self.starts, layout, config.start, None, self.envs.min_rows)
        options: dict[str, Any] = {"start": mode, "rows": rows}
        if mode == "continue":
            shape = (config.batch // config.group,)
            index = torch.randint(len(self.real["train"][0]), shape, generator=self.generator)
            index = self.processes.shard(index.repeat_interleave(config.group))
            options["codes"] = layout.flatten([grid[index] for grid in self.real["train"]])
        with self.clock("environment"):
            canvas, _ = self.envs.reset(options=options)
        with self.clock("sampling"):
            codes = torch.from_numpy(canvas.astype(np.int64)).to(self.device)
            prefixes = layout.unflatten(codes, int(layout.heights(canvas)[0]))
            count, rank = self.processes.count, self.processes.rank
            # Priors that are not ours know no shared noise.
            ours = count > 1 and all(isinstance(policy, PixelCNN) for policy in self.policies)
            noise: Any = SharedGenerator(self.noise, rank, count) if ours else self.noise
            grids = joint.sample(self.policies, prefixes, generator=noise)
        return canvas, grids, _flat(prefixes) == layout.empty

    def update_discriminator(self) -> Row:
        if not self.config.fake_pool or not self.pool:
            self.pool.append(self.rollout()[1])
        with self.clock("discriminator"):
            fake = self.pool[int(torch.randint(len(self.pool), (1,), generator=self.generator))]
            return self.trainer.update(self.seen_real("train", like=fake), self.seen(fake))

    def scores(self, grids: Grids) -> tuple[Tensor, Tensor]:
        """Score maps of held-out reals and of these fakes, of all processes."""
        with torch.no_grad(), self.clock("scoring"):
            shown = self.seen_real("validation", like=grids), self.seen(grids)
            real, fake = (self.discriminator(each) for each in shown)
        return self.processes.gather(real), self.processes.gather(fake)

    def earn(self, canvas: np.ndarray, grids: Grids) -> tuple[np.ndarray, Tensor, Tensor]:
        """Play the episodes: finished canvases, rewards (B,), advantages (B, T)."""
        config = self.config
        finished = canvas.copy()
        finished[:, self.layout.head(grids[0].shape[1])] = _flat(grids).cpu().numpy()
        with self.clock("environment"):
            rewards, infos = play(self.envs, canvas, finished, config.step_by_step)
        earned = torch.from_numpy(infos["step_rewards"]).to(self.device)  # (B, T)
        q = self.processes.gather(returns(earned, config.gamma))  # of the whole batch
        mean = q.mean().item()
        before = mean if self.mean_return is None else self.mean_return
        whole = advantages(q, config.baseline, config.standardise, config.group, before)
        self.mean_return = 0.9 * before + 0.1 * mean
        return finished, torch.from_numpy(rewards), self.processes.shard(whole)

    def step(self, losses: dict[str, Tensor]) -> None:
        """One update of the priors that learn."""
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.processes.average_gradients(self.learning)
        self.optimizer.step()
        average_into(self.average, self.policy, self.config.ema)

    def learnt(self, grids: Grids) -> Tensor:
        """Which cells of the canvas are of a level that learns: bool (cells,)."""
        levels = range(len(grids))[LEVELS[self.config.levels]]
        return torch.cat(
            [
                torch.full((grid[0].numel(),), level in levels, device=self.device)
                for level, grid in enumerate(grids)
            ]
        )

    def mle_loss(self) -> Tensor:
        """Nats per real code. With dropout, as in pretraining: few real codes are soon learnt by
        heart."""
        index = self.some("train")
        real = [grid[index] for grid in self.real["train"]]
        self.learning.train()
        nats = -_flat(joint.log_prob(self.policies, real))[:, self.learnt(real)].mean()
        self.learning.eval()
        return nats


def _check(config: Config) -> None:
    if config.baseline == "leave-one-out" and config.batch < 2:
        raise ValueError("baseline='leave-one-out' needs a batch of at least 2, got 1")
    if config.baseline == "group" and config.group < 2:
        raise ValueError(
            f"baseline='group' needs canvases that start alike: group={config.group}, expected 2 "
            "or more (with start='full' all do: group may be the batch)"
        )
    if config.epochs < 1 or config.group < 1 or config.iterations < 0:
        raise ValueError(
            f"epochs={config.epochs}, group={config.group}, iterations={config.iterations}: "
            "expected 1 or more, iterations 0 or more"
        )


def train(
    config: Config,
    out: Path | str | None = None,
    progress: bool = True,
    watch: Callable[[int, list[PixelCNN]], Row] | None = None,
    watch_every: int = 50,
    bundle: bundles.Bundle | None = None,
    resume: bool = False,
) -> Result:
    """Fine-tune a bundle's priors, all levels together, on the process that samples from them.

    Several processes, started by ``torchrun``, share the batch and make the update of one.

    Args:
        config: the settings.
        out: folder for config.json, progress.csv, TensorBoard events, sample grids, checkpoints
            and, at the end or on Ctrl-C, the fine-tuned bundle (``out/bundle``) and a row of
            results (metrics.csv). None writes nothing.
        progress: whether to show a progress bar.
        watch: called every ``watch_every`` iterations with the iteration and the policies as they
            would be returned; what it returns is logged with the other figures.
        bundle: a loaded bundle, in place of ``config.bundle``. Of one that
            :func:`ral_env.bundle.custom.assemble` made, ``out`` gets the fine-tuned weights alone.
        resume: go on with the run in ``out`` from its last checkpoint. On the CPU the end is, to
            the bit, that of a run that was never cut.

    Raises:
        ValueError: if a setting, the bundle, or a score is bad; if ``out`` holds a run already, or,
            to resume, none.
    """
    game = Game(config, bundle)
    processes, net, envs = game.processes, game.discriminator, game.envs
    first = processes.rank == 0
    run = Run(out, dataclasses.asdict(config), resume) if out is not None and first else None
    history: list[Row] = []
    iteration, elapsed_before = 0, 0.0
    checkpoint = None
    if out is not None:
        settings = dataclasses.asdict(config)
        for free in ("device", "checkpoint_every"):
            settings.pop(free)
        checkpoint = Checkpoint(Path(out) / "checkpoint.pt", settings, game.parts, processes)
        if resume and checkpoint.exists():
            state, own = checkpoint.restore()
            game.load_state(state["game"], own)
            history = state["history"]
            iteration, elapsed_before = state["iteration"], state["seconds"]
            if run:
                run.rewrite(history)

    def save() -> None:
        if checkpoint:
            common, own = game.state()
            state = {"game": common, "history": history, "iteration": iteration}
            checkpoint.save(state | {"seconds": clock()}, own)

    start = time.perf_counter() - elapsed_before

    def clock() -> float:
        """Seconds so far; all processes stop together, so they must agree on it."""
        return processes.mean({"seconds": time.perf_counter() - start})["seconds"]

    interrupted = False
    timed = config.seconds is not None
    bar = tqdm(
        total=int(config.seconds) if timed else config.iterations,  # type: ignore[arg-type]
        initial=min(int(elapsed_before), int(config.seconds or 0)) if timed else iteration,
        desc="ral",
        unit="s" if timed else "it",
        disable=not progress or not first,
    )
    try:
        if iteration == 0:
            for step in range(config.warmup):
                if config.fake_pool and step % max(1, config.discriminator_updates) == 0:
                    game.pool.append(game.rollout()[1])
                game.update_discriminator()
                bar.set_postfix_str(f"discriminator warm-up {step + 1}/{config.warmup}")
            save()

        while iteration < config.iterations:
            elapsed = clock()
            if config.seconds is not None and elapsed >= config.seconds:
                break
            game.spent.clear()
            row: Row = {"iteration": iteration + 1, "seconds": elapsed}

            # 1. The discriminator learns, on reconstructed real images against the policy's.
            for _ in range(config.discriminator_updates):
                row |= game.update_discriminator()

            # 2. The policy writes a batch of canvases. What does the discriminator make of them,
            #    which it has never seen?
            canvas, grids, sampled = game.rollout()
            real_map, fake_map = game.scores(grids)
            game.aucs.append(auc(real_map.mean((1, 2, 3)), fake_map.mean((1, 2, 3))))
            row["auc"] = float(np.mean(game.aucs))
            if config.fake_pool:
                game.pool.append(grids)

            # 3. Its scores, normalised by the largest of this batch of reals and fakes, pay.
            game.normaliser.update(real_map, fake_map)
            envs.set_discriminator(net, game.normaliser.scale, game.kind)
            finished, rewards, earned = game.earn(canvas, grids)
            row["reward"] = rewards.mean().item()
            row["reward_scale"] = game.normaliser.scale

            # 4. Policy gradient (Eq. 2), from teacher-forced passes. A blind judge teaches nothing.
            row["gated"] = float(row["auc"] < config.gate_auc)
            done = (iteration + 1) / config.iterations
            if config.seconds is not None:
                done = max(done, elapsed / config.seconds)
            for group in game.optimizer.param_groups:
                group["lr"] = config.learning_rate * (1 - (1 - config.final_rate) * done)
            with game.clock("learning"):
                advantage = torch.zeros(sampled.shape, device=game.device)
                advantage[sampled] = earned.flatten()
                cells = sampled & game.learnt(grids)
                old = reference = None
                if config.kl_loss_coef:
                    with torch.no_grad():
                        reference = _flat(joint.log_prob(game.priors, grids))
                for epoch in range(config.epochs):
                    log_prob = _flat(joint.log_prob(game.policies, grids))
                    if old is None:
                        old = log_prob.detach()
                        row["entropy"] = -(old * sampled).sum().item() / len(sampled)
                        if reference is not None:
                            gap = (old - reference) * sampled
                            row["kl"] = gap.sum().item() / len(sampled)
                    losses = policy_losses(log_prob, old, advantage, cells, reference, config)
                    if epoch == 0:
                        row |= {name: loss.item() for name, loss in losses.items()}
                    if config.mle_coef:
                        nats = game.mle_loss()
                        row["nats_per_code"] = nats.item()
                        losses["mle_loss"] = config.mle_coef * nats
                    if not row["gated"]:
                        game.step(losses)

            iteration += 1
            row |= game.spent
            if watch and iteration % watch_every == 0:
                row |= watch(iteration, game.averages)
            row = processes.mean(row)
            history.append(row)
            if run:
                run.row(row)
                if run.wants_images(iteration):
                    run.images(iteration, envs.images(finished[:16]))
            if iteration % config.checkpoint_every == 0:
                save()
            bar.update(min(int(elapsed), bar.total) - bar.n if timed else 1)
            bar.set_postfix_str(f"reward {row['reward']:+.3f}, auc {row['auc']:.2f}")
        save()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        bar.close()
        envs.close()
    averages = [average.cpu() for average in game.averages]
    result = Result(averages, net.cpu(), history, clock(), interrupted)
    if run:
        figures = results(game.bundle, averages, seed=config.seed)
        run.finish(
            game.bundle,
            averages,
            {"input": game.kind, "net": net, "scale": game.normaliser.scale},
            {
                "algo": "reinforce", "env": config.env, "seed": config.seed,
                "iterations": len(history), "canvases": len(history) * config.batch,
                "seconds": result.seconds, **figures,
            },
        )  # fmt: skip
    return result


def _spelling(word: str) -> str:
    """Options may be written with dashes, and the discriminator's loss without its prefix."""
    option, equals, value = word.partition("=")
    if not option.startswith("--"):
        return word
    option = "--" + option[2:].replace("-", "_")
    return {"--loss": "--discriminator.loss", "--level": "--levels"}.get(option, option) + (
        equals + value
    )


def main(argv: list[str] | None = None) -> int:
    """Fine-tune a prior: ``ral train --env ID --preset small --out runs/mine``."""
    from jsonargparse import ArgumentParser

    argv = sys.argv[1:] if argv is None else argv
    argv = [_spelling(word) for word in argv[argv[:1] == ["--"] :]]  # torchrun passes it on
    parser = ArgumentParser(prog="ral train", description=main.__doc__)
    parser.add_argument(
        "--preset", choices=list(PRESETS), default="paper", help="settings to start from"
    )
    parser.add_argument(
        "--out",
        default=None,
        help="folder for all that is written (default: runs/ENV-reinforce-SEED)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--threads", type=int, default=1, help="of torch; small nets want one")
    parser.add_class_arguments(Config)
    # The preset is read first: its values are the defaults of all other arguments.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", choices=list(PRESETS), default="paper")
    preset = PRESETS[first.parse_known_args(argv)[0].preset]
    parser.set_defaults(dataclasses.asdict(preset))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    chosen = parser.instantiate(arguments)
    config = Config(**{f.name: chosen[f.name] for f in dataclasses.fields(Config)})
    out = arguments.out or f"runs/{config.env}-reinforce-{config.seed}"
    result = train(config, out, resume=arguments.resume)
    word = "interrupted" if result.interrupted else "finished"
    print(f"{word} after {len(result.history)} iterations, {result.seconds:.0f} s")
    print(f"wrote {out}/bundle; use it with bundle={out + '/bundle'!r}")
    return 130 if result.interrupted else 0
