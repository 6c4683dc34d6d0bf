"""The discriminator a bundle comes with: trained against the bundle's own MLE prior."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from agents.training.discriminator import Adversary, DiscriminatorTraining
from agents.training.fit import Grids
from ral_env.nets import VQVAE, PatchGAN, PatchGANConfig, PixelCNN, joint


@torch.no_grad()
def fit(
    config: PatchGANConfig,
    kind: str,
    vqvae: VQVAE,
    priors: Sequence[PixelCNN],
    train: Sequence[Grids],
    validation: Sequence[Tensor],
    training: DiscriminatorTraining,
    fakes: int = 4096,
    batch: int = 128,
    check_every: int = 50,
    patience: int = 6,
    max_steps: int = 2000,
    seed: int = 0,
    label: str = "",
) -> tuple[PatchGAN, float, dict[str, float]]:
    """Train until the AUC on held-out codes, real and fake, has stopped rising; keep the best.

    Args:
        kind: what it sees of the codes, ``image`` or ``codes`` (:meth:`VQVAE.represent`).
        train, validation: real codes, int64 (N, h, w) a level; the first are only indexed.
        fakes: canvases sampled from the priors; an eighth of them is held out.

    Returns:
        The net, the reward scale (largest absolute score over held-out real and fake inputs, as
        paper section 4.4 normalises) and ``{"auc": ..., "steps": ...}``.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    sampled = joint.draw(priors, fakes, generator)
    fake_train = [grid[fakes // 8 :] for grid in sampled]

    def inputs(grids: Sequence[Tensor]) -> Tensor:
        parts = zip(*(grid.split(128) for grid in grids), strict=True)
        return torch.cat([vqvae.represent(part, kind) for part in parts])

    def some(grids: Sequence[Grids]) -> Tensor:
        index = torch.randint(len(grids[0]), (batch,), generator=generator)
        return inputs([grid[index] for grid in grids])

    real_held_out = inputs(validation)
    fake_held_out = inputs([grid[: fakes // 8] for grid in sampled])
    trainer = Adversary(PatchGAN(config), training)
    best, best_state, since_best, best_step = -1.0, {}, 0, 0
    bar = tqdm(range(1, max_steps + 1), desc=label, unit="step", disable=not label, mininterval=1.0)
    for step in bar:
        real, fake = some(train), some(fake_train)
        with torch.enable_grad():
            losses = trainer.update(real, fake)
        if step % check_every == 0 or step == max_steps:
            auc = trainer.held_out_auc(real_held_out, fake_held_out)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
            bar.set_postfix_str(f"AUC {auc:.3f}, {shown}")
            since_best += 1
            if auc > best:
                best, since_best, best_step = auc, 0, step
                best_state = copy.deepcopy(trainer.net.state_dict())
            if since_best >= patience:
                break
    net = trainer.net
    net.load_state_dict(best_state)
    net.eval()
    maps = torch.cat([net(real_held_out).flatten(), net(fake_held_out).flatten()])
    return net, maps.abs().max().item(), {"auc": best, "steps": best_step}  # type: ignore
