"""A feature net tells what is in an image; Fréchet distances are taken in its last hidden layer."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from pretrain.data import Images, Pixels
from pretrain.pixels import chunks, shifted, to_float
from pretrain.stages import Pretraining
from ral_env.nets import VQVAE, FeatureNet, FeatureNetConfig


def train_features(
    run: Pretraining, images: Images, vqvae: VQVAE
) -> tuple[FeatureNet | None, dict[str, Any]]:
    """The stage: train the recipe's feature net on what the images are known to show.

    Returns:
        The net and its figures, see :func:`fit`; None and no figures if the recipe has no feature
        net or nothing is known of the images.
    """
    if run.recipe.features is None or images.targets is None:
        return None, {}
    targets = {split: torch.as_tensor(known) for split, known in images.targets.items()}
    classes = images.target_kind == "classes"
    outputs = int(targets["train"].max()) + 1 if classes else targets["train"].shape[1]
    config = dataclasses.replace(run.recipe.features, outputs=outputs)

    def make() -> dict[str, Any]:
        net, figures = fit(
            config,
            vqvae,
            images.part("train"),
            targets["train"],
            images.part("validation"),
            targets["validation"],
            steps=run.recipe.feature_steps,
            seed=run.seed,
            label=run.progress_label("features"),
        )
        return {"weights": net.state_dict(), "metrics": figures}

    made = run.folder.once("features", make)
    net = FeatureNet(config).eval()
    net.load_state_dict(made["weights"])
    run.folder.say("features", made["metrics"])
    return run.rounded(net), made["metrics"]


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
    """Train on images and on their reconstructions, by turns.

    The net will compare decoded codes with images, so it must not be surprised by what a decoder
    does to an image.

    Args:
        config: Sizes of the net.
        vqvae: Makes the reconstructions.
        images, validation: uint8 images (N, 3, S, S).
        targets, validation_targets: int64 classes (N,), or float attributes (N, A).
        steps: Number of updates.
        batch: Number of images per update.
        learning_rate: Learning rate of AdamW, which falls to zero along a cosine.
        shift: Largest number of pixels by which augmentation moves an image.
        seed: Seed of the weights, of the images of each update and of augmentation.
        label: Name of the progress bar; none is shown if empty.

    Returns:
        The net and its figure on the *reconstructions* of the validation images: ``accuracy``, or
        ``r2`` (the explained share of variance, a mean over attributes).
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
    return net, _figure(net, vqvae, validation, validation_targets)


@torch.no_grad()
def _figure(net: FeatureNet, vqvae: VQVAE, images: Pixels, targets: Tensor) -> dict[str, float]:
    """Accuracy or r2 on reconstructions."""
    reconstructions = [vqvae.decode(vqvae.encode(to_float(x))) for x in chunks(images)]
    output = torch.cat([net(x) for x in reconstructions])
    if not targets.is_floating_point():
        return {"accuracy": (output.argmax(1) == targets).float().mean().item()}
    residual = (output - targets).square().mean(0) / targets.var(0)
    return {"r2": (1 - residual).mean().item()}
