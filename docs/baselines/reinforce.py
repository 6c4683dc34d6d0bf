"""Reinforced adversarial learning in one file: REINFORCE against a discriminator that learns too.

    python docs/baselines/reinforce.py --env RALDigits-v0 --iterations 300 --out runs/one-file

It uses the public environment, and of the package's nets their log-probs and exact cached sampling;
the rest is here, to be read from top to bottom. With the same settings its first iterations are
those of ``ral train --algo reinforce`` (a test). What that has beside: partial starts, other
rewards and baselines, checkpoints, several processes.
"""

from __future__ import annotations

import argparse
import copy
from collections import deque
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import ral_env  # noqa: F401  (registers the ids)
from agents.evaluation.evaluator import results
from ral_env.nets import joint, represent
from ral_env.picture import contact_sheet, to_bytes

__all__ = ["Args", "train"]


@dataclass
class Args:
    """Settings; those of the preset ``small``, but that the policy learns however blind the
    discriminator is (``gate_auc``)."""

    env: str = "RALDigits-v0"
    seed: int = 0
    iterations: int = 300
    canvases: int = 64
    """Number of canvases that are written and paid together."""
    learning_rate: float = 1e-3
    final_rate: float = 0.1
    """Share of the learning rate that is left at the end; it falls linearly."""
    mle_coef: float = 0.3
    """Weight of maximum likelihood on real codes: an anchor."""
    ema: float = 0.99
    """Decay of the running average of the policy, which is what is kept."""
    discriminator_rate: float = 1e-3
    discriminator_warmup: int = 50
    discriminator_updates: int = 3
    fake_pool: int = 4
    """Number of the last rollouts that the discriminator learns from."""
    r1: float = 0.1
    """Weight of the squared gradient norm at real inputs."""
    shift: int = 1
    drop: float = 0.05
    """Augmentation: cells that inputs are moved by, share of them that is set to zero."""
    out: str = "runs/one-file"


def train(args: Args, log: Any = print) -> tuple[nn.ModuleList, list[dict[str, float]]]:
    """Train; returns the averaged policies, one a level, and a row of figures an iteration."""
    torch.manual_seed(args.seed)  # augmentation, dropout
    which = torch.Generator().manual_seed(args.seed)  # real canvases, rollouts of the pool
    noise = torch.Generator().manual_seed(args.seed)  # of the samples
    envs = gym.make_vec(args.env, num_envs=args.canvases, autoreset_mode="disabled")
    envs.reset(seed=args.seed)
    bundle = envs.unwrapped.bundle
    layout, codec, kind = bundle.layout, bundle.vqvae, "codes"
    real, held_out = (layout.as_grids(bundle.split(s)) for s in ("train", "validation"))

    # The policy is the bundle's prior: log-probs of codes given all before them, an exact sampler.
    policies = nn.ModuleList(copy.deepcopy(bundle.priors)).eval().requires_grad_(True)
    averages = copy.deepcopy(policies).requires_grad_(False)
    optimizer = torch.optim.Adam(policies.parameters(), lr=args.learning_rate, betas=(0.5, 0.999))
    # The discriminator: codebook vectors in, a map of scores out, real is high.
    discriminator = copy.deepcopy(bundle.discriminator_for(kind)[0]).eval().requires_grad_(True)
    d_optimizer = torch.optim.Adam(
        discriminator.parameters(), lr=args.discriminator_rate, betas=(0.5, 0.999)
    )
    pool: deque[Tensor] = deque(maxlen=args.fake_pool)  # of fakes as the discriminator sees them

    def seen(grids: list[Tensor]) -> Tensor:
        """What the discriminator is shown of codes: (B, C, h, w)."""
        with torch.no_grad():
            return represent(codec, grids, kind)

    def batch(split: list[Tensor]) -> list[Tensor]:
        index = torch.randint(len(split[0]), (args.canvases,), generator=which)
        return [grid[index] for grid in split]

    def write() -> list[Tensor]:
        """Canvases that the policy writes from nothing: int64 (B, h, w), a grid a level."""
        envs.reset()
        return joint.sample(policies, layout.empty_grids(args.canvases), generator=noise)

    def update_discriminator() -> dict[str, float]:
        fakes = pool[int(torch.randint(len(pool), (1,), generator=which))]
        reals = seen(batch(real))
        x, y = (augmented(inputs, args.shift, args.drop) for inputs in (reals, fakes))
        x.requires_grad_()
        discriminator.train()
        real_scores, fake_scores = (discriminator(side).mean((1, 2, 3)) for side in (x, y))
        # Logistic: at its minimum the score is log p(real) / p(fake).
        loss = F.softplus(-real_scores).mean() + F.softplus(fake_scores).mean()
        (gradient,) = torch.autograd.grad(real_scores.sum(), x, create_graph=True)
        r1 = args.r1 / 2 * gradient.square().flatten(1).sum(1).mean()
        d_optimizer.zero_grad()
        (loss + r1).backward()
        d_optimizer.step()
        discriminator.eval()
        return {"cross_entropy": loss.item(), "r1": r1.item()}

    for step in range(args.discriminator_warmup):
        if step % args.discriminator_updates == 0:
            pool.append(seen(write()))
        update_discriminator()

    rows = []
    for iteration in range(1, args.iterations + 1):
        # 1. The discriminator learns.
        for _ in range(args.discriminator_updates):
            row = {"iteration": iteration} | update_discriminator()

        # 2. The policy writes canvases; scores are divided by the largest of reals and fakes.
        grids = write()
        pool.append(seen(grids))
        with torch.no_grad():
            maps = [discriminator(seen(batch(held_out))), discriminator(pool[-1])]
        scale = max(max(scores.abs().max().item() for scores in maps), 1e-6)

        # 3. The environment pays: the mean score of the finished canvas, with its last code.
        envs.unwrapped.set_discriminator(discriminator, scale, kind)
        _, rewards, *_ = envs.unwrapped.complete(layout.flatten(grids))
        row["reward"] = float(rewards.mean())

        # 4. REINFORCE: the gradient of log-probs, weighted by how much better a canvas was than
        #    the others. With nothing paid before the end, all codes of a canvas have its return.
        returns = torch.from_numpy(rewards)[:, None].expand(-1, layout.length)
        advantage = (returns - returns.mean(0)) * args.canvases / (args.canvases - 1)
        advantage = advantage / advantage.std().clamp(min=1e-6)
        log_prob = flat(joint.log_prob(policies, grids))
        loss = -(advantage * log_prob).mean()
        row["entropy"] = -log_prob.sum(1).mean().item()

        # 5. An anchor: likelihood of real codes, with dropout as in pretraining.
        reals = batch(real)
        policies.train()
        nats = -flat(joint.log_prob(policies, reals)).mean()
        policies.eval()
        row["nats_per_code"] = nats.item()

        share = 1 - (1 - args.final_rate) * iteration / args.iterations
        optimizer.param_groups[0]["lr"] = args.learning_rate * share
        optimizer.zero_grad()
        (loss + args.mle_coef * nats).backward()
        optimizer.step()
        with torch.no_grad():
            for mine, new in zip(averages.parameters(), policies.parameters(), strict=True):
                mine.lerp_(new, 1 - args.ema)

        rows.append(row)
        if iteration == 1 or iteration % 20 == 0:
            log(", ".join(f"{name} {value:.4g}" for name, value in row.items()))
    envs.close()
    return averages, rows


def augmented(inputs: Tensor, shift: int, drop: float) -> Tensor:
    """Inputs (B, C, h, w), each moved by up to ``shift`` cells, a share ``drop`` of them zero."""
    count, _, height, width = inputs.shape
    if shift:
        padded = F.pad(inputs, (shift,) * 4)
        top, left = (torch.rand(count, 2) * (2 * shift + 1)).long().unbind(1)
        moved = zip(padded, top.tolist(), left.tolist(), strict=True)
        inputs = torch.stack([x[:, t : t + height, s : s + width] for x, t, s in moved])
    if drop:
        inputs = inputs * (torch.rand(count, 1, height, width) >= drop)
    return inputs


def flat(grids: list[Tensor]) -> Tensor:
    """A level each, (B, h, w), to (B, cells)."""
    return torch.cat([grid.flatten(1) for grid in grids], 1)


def parse(argv: list[str] | None = None) -> Args:
    """The settings, each an option."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for field in fields(Args):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    return Args(**vars(parser.parse_args(argv)))


def main(argv: list[str] | None = None) -> None:
    """Train, measure, and leave samples.png and policy.pt in ``--out``."""
    args = parse(argv)
    torch.set_num_threads(1)
    policies, _ = train(args)
    bundle = gym.make(args.env).unwrapped.bundle
    figures = results(bundle, list(policies), args.seed)
    for name in ("fd", "precision", "coverage", "entropy", "forward_nll"):
        print(f"{name}: prior {figures[f'prior_{name}']:.4g}, now {figures[name]:.4g}")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.save(policies.state_dict(), out / "policy.pt")
    empty = bundle.layout.empty_grids(64)
    grids = joint.sample(policies, empty, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        Image.fromarray(contact_sheet(to_bytes(bundle.vqvae.decode(grids)))).save(
            out / "samples.png"
        )
    print(f"samples and policy: {out}")


if __name__ == "__main__":
    main()
