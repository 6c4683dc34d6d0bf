"""Reinforced adversarial learning: REINFORCE for priors, against a discriminator that learns too.

The whole algorithm is :func:`train`, to be read from top to bottom. The defaults are the paper's
(section 4.4). They hardly move a small prior, so ``--preset small`` is what works at 8x8 codes;
each of its departures is named beside it, in :data:`PRESETS`.

    ral train --env RALDigits-v0 --preset small
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from safetensors.torch import save_model
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid
from tqdm import tqdm

import ral_env  # noqa: F401  registers the ids
from agents.discriminator import DiscriminatorTrainer, DiscriminatorTraining, auc
from agents.mle import as_grids
from agents.training import average_into
from ral_env import bundle as bundles
from ral_env.nets import PatchGAN, PatchGANConfig, PixelCNN, joint, represent
from ral_env.own import OwnBundle
from ral_env.reward import NORMALISERS
from ral_env.vector import LatentCanvasVectorEnv

Grids = list[Tensor]  # codes, one grid a level, top first


@dataclass(frozen=True)
class Config:
    """Settings of the loop. Defaults are the paper's.

    Args:
        env: id of the environment.
        bundle: another bundle than the id's own.
        reward: ``single`` (Eq. 6), ``intermediate`` (section 4.2), or ``rowwise``.
        reward_source: ``discriminator``, or a control arm: ``constant``, ``random``, ``shuffled``.
        start: how episodes start; ``partial`` is the paper's partial generation (section 4.3).
        iterations: policy updates.
        seconds: stop after this much time instead, if it comes first.
        batch: canvases an update.
        learning_rate: of the policy's Adam.
        final_rate: the learning rate falls linearly to this share of itself.
        betas: of the policy's Adam.
        gamma: discount of the return (Eq. 3).
        warmup: discriminator updates before the first policy update.
        discriminator_updates: discriminator updates for each policy update.
        fake_pool: fakes of a discriminator update come from the last so many batches of the
            policy's own episodes; 0 samples a fresh batch for each, as the paper does.
        discriminator_input: ``image``, or ``codes`` for codebook vectors.
        discriminator_net: sizes of a new discriminator; none goes on from the bundle's.
        normaliser: of scores: ``batch``, the largest of each batch of reals and fakes, or
            ``running``, a moving average of that.
        discriminator: how it learns; its ``loss`` is wgan-gp or logistic.
        baseline: ``none``, or ``leave-one-out``: the mean return of the batch's other canvases.
        standardise: divide advantages by their standard deviation over the batch.
        mle_weight: weight of a maximum-likelihood term on real codes (nats per code).
        ema: decay of the running average of the policy, which is what is returned; 0 is none.
        gate_auc: update the policy only while the discriminator's AUC on fakes it has not
            trained on and on held-out reals (mean of the last 20 iterations) is at least this.
        step_by_step: play episodes code by code through ``step`` instead of ``complete``.
        device: where all networks run.
        seed: of everything.
    """

    env: str = "RALFaces32-v0"
    bundle: str | None = None
    reward: Literal["single", "intermediate", "rowwise"] = "single"
    reward_source: Literal["discriminator", "constant", "random", "shuffled"] = "discriminator"
    start: Literal["full", "continue", "scratch", "partial"] = "partial"
    iterations: int = 1000
    seconds: float | None = None
    batch: int = 16
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
    baseline: Literal["none", "leave-one-out"] = "none"
    standardise: bool = False
    mle_weight: float = 0.0
    ema: float = 0.0
    gate_auc: float = 0.0
    step_by_step: bool = False
    device: str = "cpu"
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
        mle_weight=0.3,  # an anchor: without it a small prior loses modes, whatever the reward
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
    history: list[dict[str, float]]
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


def advantages(q: Tensor, baseline: str, standardise: bool) -> Tensor:
    """Returns (B, T) less their baseline, scaled if asked for."""
    if baseline == "leave-one-out":
        # Q_i - mean of the others = (Q_i - mean of all) * B / (B - 1); unbiased: the others'
        # returns do not depend on canvas i's codes.
        q = (q - q.mean(0)) * (len(q) / (len(q) - 1))
    if standardise:
        # A reward that does not vary (the constant arm) has no advantage, not an infinite one.
        q = q / q.std().clamp(min=1e-6)
    return q


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


def train(
    config: Config,
    out: Path | str | None = None,
    progress: bool = True,
    watch: Callable[[int, list[PixelCNN]], dict[str, float]] | None = None,
    watch_every: int = 50,
    bundle: bundles.Bundle | None = None,
) -> Result:
    """Fine-tune a bundle's priors, all levels together, on the process that samples from them.

    Args:
        config: the settings.
        out: folder for config.json, progress.csv, TensorBoard events, sample grids and, at the
            end or on Ctrl-C, the fine-tuned bundle (``out/bundle``). None writes nothing.
        progress: whether to show a progress bar.
        watch: called every ``watch_every`` iterations with the iteration and the policies as they
            would be returned; what it returns is logged with the other figures.
        bundle: a loaded bundle, in place of ``config.bundle``. Of one that
            :func:`ral_env.own.assemble` made, ``out`` gets the fine-tuned weights alone.

    Raises:
        ValueError: if a setting, the bundle, or a score is bad.
    """
    if config.baseline == "leave-one-out" and config.batch < 2:
        raise ValueError("baseline='leave-one-out' needs a batch of at least 2, got 1")
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)  # which codes and fakes
    noise = torch.Generator(config.device).manual_seed(config.seed)  # of sampling
    chosen = config.bundle if bundle is None else bundle
    kwargs: dict[str, Any] = {} if chosen is None else {"bundle": chosen}
    envs: LatentCanvasVectorEnv = gym.make_vec(
        config.env,
        num_envs=config.batch,
        reward=config.reward,
        reward_source=config.reward_source,
        start=config.start,
        autoreset_mode="disabled",
        device=config.device,
        **kwargs,
    ).unwrapped  # type: ignore
    bundle, layout = envs.bundle, envs.layout
    if not bundle.priors:
        raise ValueError("the bundle has no priors, expected one a level: they are what learns")
    vqvae = copy.deepcopy(bundle.vqvae).to(config.device)
    # In eval mode, without dropout: the policy that learns is the one that acts.
    policies = [copy.deepcopy(prior).to(config.device).eval() for prior in bundle.priors]
    averages = copy.deepcopy(policies)
    policy, average = nn.ModuleList(policies), nn.ModuleList(averages)
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate, betas=config.betas)

    kind = config.discriminator_input
    if config.discriminator_net is not None:
        net = PatchGAN(config.discriminator_net)
    elif bundle.discriminator_input != kind:
        raise ValueError(
            f"the bundle's discriminator sees {bundle.discriminator_input!r}, but "
            f"discriminator_input={kind!r}: give discriminator_net to start a new one"
        )
    else:
        net = copy.deepcopy(bundle.discriminator)
    net.to(config.device)
    normaliser = NORMALISERS[config.normaliser](bundle.reward_scale)
    trainer = DiscriminatorTrainer(net, config.discriminator)

    real, held_out = (
        [grid.to(config.device) for grid in as_grids(layout, bundle.split(name))]
        for name in ("train", "validation")
    )
    pool: deque[Grids] = deque(maxlen=max(1, config.fake_pool))
    aucs: deque[float] = deque(maxlen=20)
    history: list[dict[str, float]] = []
    log = _Log(out, config) if out is not None else None

    def some(grids: Grids, like: Grids | None = None) -> Grids:
        """A batch of them, cut to as many rows as ``like`` has."""
        index = torch.randint(len(grids[0]), (config.batch,), generator=generator)
        heights = [grid.shape[1] for grid in like or grids]
        return [grid[index, :rows] for grid, rows in zip(grids, heights, strict=True)]

    def seen(grids: Grids) -> Tensor:
        with torch.no_grad():
            return represent(vqvae, grids, kind)

    def rollout() -> tuple[np.ndarray, Grids, Tensor]:
        """Start episodes and sample every code they are to write.

        Returns the start canvases (B, length), the finished grids (B, rows, w) of those rows that
        the episodes have, and which of their cells, (B, cells), were sampled.
        """
        canvas, _ = envs.reset()
        rows = int(layout.heights(canvas)[0])
        codes = torch.from_numpy(canvas.astype(np.int64)).to(config.device)
        prefixes = layout.unflatten(codes, rows)
        grids = joint.sample(policies, prefixes, generator=noise)
        return canvas, grids, _flat(prefixes) == layout.empty

    def update_discriminator() -> dict[str, float]:
        if not config.fake_pool or not pool:
            pool.append(rollout()[1])
        fake = pool[int(torch.randint(len(pool), (1,), generator=generator))]
        return trainer.update(seen(some(real, like=fake)), seen(fake))

    envs.reset(seed=config.seed)
    interrupted = False
    start = time.perf_counter()
    timed = config.seconds is not None
    bar = tqdm(
        total=int(config.seconds) if timed else config.iterations,  # type: ignore[arg-type]
        desc="ral",
        unit="s" if timed else "it",
        disable=not progress,
    )
    try:
        for step in range(config.warmup):
            if config.fake_pool and step % config.discriminator_updates == 0:
                pool.append(rollout()[1])
            update_discriminator()
            bar.set_postfix_str(f"discriminator warm-up {step + 1}/{config.warmup}")

        for iteration in range(1, config.iterations + 1):
            elapsed = time.perf_counter() - start
            if config.seconds is not None and elapsed >= config.seconds:
                break
            row: dict[str, float] = {"iteration": iteration, "seconds": elapsed}

            # 1. The discriminator learns, on reconstructed real images against the policy's.
            for _ in range(config.discriminator_updates):
                row |= update_discriminator()

            # 2. The policy writes a batch of canvases. What does the discriminator make of them,
            #    which it has never seen?
            canvas, grids, sampled = rollout()
            with torch.no_grad():
                real_map, fake_map = net(seen(some(held_out, like=grids))), net(seen(grids))
            aucs.append(auc(real_map.mean((1, 2, 3)), fake_map.mean((1, 2, 3))))
            row["auc"] = float(np.mean(aucs))
            if config.fake_pool:
                pool.append(grids)

            # 3. Its scores, normalised by the largest of this batch of reals and fakes, pay.
            normaliser.update(real_map, fake_map)
            envs.set_discriminator(net, normaliser.scale, kind)
            finished = canvas.copy()
            finished[:, layout.head(grids[0].shape[1])] = _flat(grids).cpu().numpy()
            rewards, infos = play(envs, canvas, finished, config.step_by_step)
            row["reward"] = float(rewards.mean())
            row["reward_scale"] = normaliser.scale

            # 4. Policy gradient (Eq. 2), from one teacher-forced pass.
            earned = torch.from_numpy(infos["step_rewards"]).to(config.device)  # (B, T)
            q = returns(earned, config.gamma)
            advantage = torch.zeros(sampled.shape, device=config.device)
            advantage[sampled] = advantages(q, config.baseline, config.standardise).flatten()
            log_prob = _flat(joint.log_prob(policies, grids))  # (B, cells)
            loss = -(advantage * log_prob).sum() / sampled.sum()
            row["entropy"] = -(log_prob * sampled).sum().item() / len(sampled)
            row["policy_loss"] = loss.item()
            if config.mle_weight:
                # With dropout, as in pretraining: few real codes are soon learnt by heart.
                policy.train()
                nats = -_flat(joint.log_prob(policies, some(real))).mean()
                policy.eval()
                loss = loss + config.mle_weight * nats
                row["nats_per_code"] = nats.item()
            row["gated"] = float(row["auc"] < config.gate_auc)
            if not row["gated"]:
                done = iteration / config.iterations
                if config.seconds is not None:
                    done = max(done, elapsed / config.seconds)
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * (1 - (1 - config.final_rate) * done)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                average_into(average, policy, config.ema)

            if watch and (iteration % watch_every == 0):
                row |= watch(iteration, averages)
            history.append(row)
            if log:
                log.row(row, envs, finished)
            bar.update(min(int(elapsed), bar.total) - bar.n if timed else 1)
            bar.set_postfix_str(f"reward {row['reward']:+.3f}, auc {row['auc']:.2f}")
    except KeyboardInterrupt:
        interrupted = True
    finally:
        bar.close()
        envs.close()
    average.cpu()
    result = Result(averages, net.cpu(), history, time.perf_counter() - start, interrupted)
    if log:
        test = as_grids(layout, bundle.split("test"))
        nll = -joint.total_log_prob(averages, test).mean().item()
        log.checkpoint(bundle, result, kind, normaliser.scale, {"test_nats": nll})
    return result


class _Log:
    """A run's folder: config, figures as CSV and TensorBoard, sample grids, the bundle."""

    def __init__(self, out: Path | str, config: Config, images_every: int = 50):
        from stable_baselines3.common.logger import configure

        self.out, self.config, self.images_every = Path(out), config, images_every
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2))
        self.logger = configure(str(self.out), ["csv", "tensorboard"])

    def row(self, row: dict[str, float], envs: LatentCanvasVectorEnv, codes: np.ndarray) -> None:
        from stable_baselines3.common.logger import Image

        for key, value in row.items():
            self.logger.record(key, value)
        step = int(row["iteration"])
        if step == 1 or step % self.images_every == 0:
            grid = make_grid(torch.from_numpy(envs.images(codes[:16])))  # (3, H, W)
            grid = grid.repeat_interleave(3, 1).repeat_interleave(3, 2)
            self.logger.record("samples", Image(grid, "CHW"), exclude=("csv",))
            to_pil_image(grid).save(self.out / f"samples-{step:05d}.png")
        self.logger.dump(step)

    def checkpoint(
        self, bundle: bundles.Bundle, result: Result, kind: str, scale: float, metrics: dict
    ) -> Path:
        """The fine-tuned policy as a bundle: ``gym.make(ID, bundle="OUT/bundle")`` takes it.

        Nets that are not ours have no config to make them from again: their weights are saved.
        """
        self.logger.close()
        if isinstance(bundle, OwnBundle):
            nets = {f"prior_{level}": net for level, net in enumerate(result.policies)}
            for stem, net in {**nets, "discriminator": result.discriminator}.items():
                save_model(net, str(self.out / f"{stem}.safetensors"))
            return self.out
        return bundles.save(
            self.out / "bundle",
            vqvae=bundle.vqvae,
            discriminator=result.discriminator,
            discriminator_input=kind,
            reward_scale=scale,
            priors=result.policies,
            codes=bundle.codes,
            splits=bundle.splits,
            dataset=bundle.dataset,
            recipe={"reinforce": dataclasses.asdict(self.config), "from": bundle.recipe},
            metrics=metrics | {"iterations": len(result.history), "seconds": result.seconds},
            oracles=bundle.oracles,
            features=bundle.features,
        )


def _spelling(word: str) -> str:
    """Options may be written with dashes, and the discriminator's loss without its prefix."""
    option, equals, value = word.partition("=")
    if not option.startswith("--"):
        return word
    option = "--" + option[2:].replace("-", "_")
    return {"--loss": "--discriminator.loss"}.get(option, option) + equals + value


def main(argv: list[str] | None = None) -> int:
    """Fine-tune a prior: ``ral train --env ID --preset small --out runs/mine``."""
    from jsonargparse import ArgumentParser

    argv = [_spelling(word) for word in (sys.argv[1:] if argv is None else argv)]
    parser = ArgumentParser(prog="ral train", description=main.__doc__)
    parser.add_argument("--algo", choices=["reinforce"], default="reinforce", help="who learns")
    parser.add_argument(
        "--preset", choices=list(PRESETS), default="paper", help="settings to start from"
    )
    parser.add_argument("--out", default="runs/reinforce", help="folder for all that is written")
    parser.add_argument("--threads", type=int, default=1, help="of torch; small nets want one")
    parser.add_class_arguments(Config)
    # The preset is read first: its values are the defaults of all other arguments.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", choices=list(PRESETS), default="paper")
    preset = PRESETS[first.parse_known_args(argv)[0].preset]
    parser.set_defaults(dataclasses.asdict(preset))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    chosen = parser.instantiate_classes(arguments)
    config = Config(**{f.name: chosen[f.name] for f in dataclasses.fields(Config)})
    result = train(config, arguments.out)
    word = "interrupted" if result.interrupted else "finished"
    print(f"{word} after {len(result.history)} iterations, {result.seconds:.0f} s")
    print(f"wrote {arguments.out}/bundle; use it with bundle={arguments.out + '/bundle'!r}")
    return 130 if result.interrupted else 0


if __name__ == "__main__":
    raise SystemExit(main())
