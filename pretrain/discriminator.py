"""The discriminator a bundle comes with: trained against the bundle's own MLE prior."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from agents.discriminator import DiscriminatorTrainer, DiscriminatorTraining
from agents.mle import draw
from ral_env.nets import VQVAE, PatchGAN, PatchGANConfig, PixelCNN


@torch.no_grad()
def fit(
    config: PatchGANConfig,
    kind: str,
    vqvae: VQVAE,
    prior: PixelCNN,
    train: Tensor,
    validation: Tensor,
    training: DiscriminatorTraining,
    fakes: int = 4096,
    batch: int = 128,
    check_every: int = 50,
    patience: int = 6,
    most_steps: int = 2000,
    seed: int = 0,
    log: Callable[[dict[str, float]], None] | None = None,
) -> tuple[PatchGAN, float, dict[str, float]]:
    """Train until the AUC on held-out codes, real and fake, has stopped rising; keep the best.

    Args:
        kind: what it sees of the codes, ``image`` or ``codes`` (:meth:`VQVAE.represent`).
        train, validation: real codes, int64 (N, h, w).
        fakes: canvases sampled from the prior; an eighth of them is held out.

    Returns:
        The net, the reward scale (largest absolute score over held-out real and fake inputs, as
        paper section 4.4 normalises) and ``{"auc": ..., "steps": ...}``.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    sampled = draw(prior, fakes, generator)
    fake_held_out, fake_train = sampled[: fakes // 8], sampled[fakes // 8 :]

    def inputs(codes: Tensor) -> Tensor:
        return torch.cat([vqvae.represent([part], kind) for part in codes.split(512)])

    real_held_out, fake_held_out = inputs(validation), inputs(fake_held_out)
    trainer = DiscriminatorTrainer(PatchGAN(config), training)
    best, best_state, since_best, best_step = -1.0, {}, 0, 0
    for step in range(1, most_steps + 1):
        real = train[torch.randint(len(train), (batch,), generator=generator)]
        fake = fake_train[torch.randint(len(fake_train), (batch,), generator=generator)]
        with torch.enable_grad():
            losses = trainer.update(inputs(real), inputs(fake))
        if step % check_every == 0:
            auc = trainer.held_out_auc(real_held_out, fake_held_out)
            if log:
                log({"step": step, "auc": auc, **losses})
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
