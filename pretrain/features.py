"""A network that names things in images; Fréchet distances are taken in its feature layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from pretrain.data import Pixels
from pretrain.vqvae import chunks, shifted, to_float
from ral_env.nets import VQVAE, FeatureNet, FeatureNetConfig


def fit(
    config: FeatureNetConfig,
    vqvae: VQVAE,
    images: Pixels,
    targets: Tensor,
    validation: Pixels,
    validation_targets: Tensor,
    steps: int = 1500,
    batch: int = 128,
    learning_rate: float = 2e-3,
    shift: int = 2,
    seed: int = 0,
    label: str = "",
) -> tuple[FeatureNet, dict[str, float]]:
    """Train on images and on their reconstructions, half and half.

    It will judge decoded codes, so it must not be surprised by what a decoder does to an image.

    Args:
        images: uint8 (N, 3, S, S).
        targets: int64 classes (N,), or float attributes (N, A).

    Returns:
        The net and its validation figure on *reconstructions*: ``accuracy``, or ``r2`` (mean over
        attributes of the explained share of variance).
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    classes = not targets.is_floating_point()
    net = FeatureNet(config)
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    net.train()
    bar = tqdm(range(steps), desc=label, unit="step", disable=not label, mininterval=1.0)
    for step in bar:
        index = torch.randint(len(images), (batch,), generator=generator)
        x = to_float(shifted(images[index], shift, generator))
        if step % 2:
            with torch.no_grad():
                x = vqvae.decode(vqvae.encode(x))
        output = net(x)
        if classes:
            loss = F.cross_entropy(output, targets[index], label_smoothing=0.05)
        else:
            loss = F.mse_loss(output, targets[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % max(1, steps // 20) == 0:
            bar.set_postfix_str(f"loss {loss.item():.4g}")
    net.eval()
    with torch.no_grad():
        parts = [vqvae.decode(vqvae.encode(to_float(x))) for x in chunks(validation)]
        output = torch.cat([net(x) for x in parts])
    if classes:
        return net, {"accuracy": (output.argmax(1) == validation_targets).float().mean().item()}
    residual = (output - validation_targets).square().mean(0) / validation_targets.var(0)
    return net, {"r2": (1 - residual).mean().item()}
