"""Feature nets, in whose features Fréchet distances are taken; they learn before any prior does.

``labels`` learns to tell what is known of the images, ``selfsupervised`` needs to know nothing of
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agents.training import finite
from agents.training.progress import progress_bar
from pretrain.codes import SplitCodes
from pretrain.data import Images
from pretrain.pictures import Pictures, pool_for
from pretrain.pixels import shifted, to_float
from pretrain.self_supervision import fit_views
from pretrain.stages import Pretraining
from ral_env.bundle import StoredFeatures
from ral_env.nets import VQVAE, FeatureNet, FeatureNetConfig

STORED = 5_000  # images of the test part, at most, whose features a bundle holds
DECODED = 50  # canvases that are decoded together


def train_feature_nets(
    run: Pretraining, images: Images, vqvae: VQVAE
) -> tuple[dict[str, FeatureNet], dict[str, dict[str, float]]]:
    """The stage: train the feature nets that the recipe has and the images allow.

    Returns:
        The nets by name, ``labels`` before ``selfsupervised``, and the figures of each, see
        :func:`fit_labels` and :func:`pretrain.self_supervision.fit_views`. There is no ``labels``
        where nothing is known of the images.
    """
    recipe, pool = run.recipe, pool_for(run.recipe.vqvae.image_size)
    loaded: list[tuple[Pictures, Pictures]] = []  # made at most once, and only where a net learns

    def pictures() -> tuple[Pictures, Pictures]:
        if not loaded:
            parts = (images.part("train"), images.part("validation"))
            train, validation = (Pictures.of(vqvae, part, pool) for part in parts)
            loaded.append((train, validation))
        return loaded[0]

    nets: dict[str, FeatureNet] = {}
    metrics: dict[str, dict[str, float]] = {}

    def train(name: str, file: str, config: FeatureNetConfig, fit: Callable[[], Any]) -> None:
        def make() -> dict[str, Any]:
            net, figures = fit()
            return {"weights": net.state_dict(), "metrics": figures}

        made = run.folder.once(file, make)
        # It learnt averaged images, and from now on averages them itself.
        net = FeatureNet(dataclasses.replace(config, pool=pool)).eval()
        net.load_state_dict(made["weights"])
        run.folder.say(file, made["metrics"])
        nets[name], metrics[name] = run.rounded(net), made["metrics"]

    if recipe.features is not None and images.targets is not None:
        targets = {split: torch.as_tensor(known) for split, known in images.targets.items()}
        config = dataclasses.replace(recipe.features, outputs=_outputs(images, targets))
        train("labels", "features", config, lambda: fit_labels(
            config, *pictures(), targets["train"], targets["validation"],
            steps=recipe.feature_steps, seed=run.seed, label=run.progress_label("features"),
        ))  # fmt: skip
    settings = recipe.selfsupervised
    if settings is not None:
        train("selfsupervised", "selfsupervised", settings.net, lambda: fit_views(
            settings, *pictures(), seed=run.seed, label=run.progress_label("selfsupervised"),
        ))  # fmt: skip
    return nets, metrics


def _outputs(images: Images, targets: Mapping[str, Tensor]) -> int:
    """Number of classes or of attributes that are known of the images."""
    known = targets["train"]
    return int(known.max()) + 1 if images.target_kind == "classes" else known.shape[1]


def fit_labels(
    config: FeatureNetConfig,
    pictures: Pictures,
    validation: Pictures,
    targets: Tensor,
    validation_targets: Tensor,
    steps: int = 1500,
    batch: int = 128,
    learning_rate: float = 2e-3,
    shift: int = 2,
    seed: int = 0,
    label: str = "",
) -> tuple[FeatureNet, dict[str, float]]:
    """Train a feature net on what is known of images.

    Args:
        config: Sizes of the net.
        pictures, validation: What it learns from, and what its figure is measured on.
        targets, validation_targets: int64 classes (N,), or float attributes (N, A), of those
            images and of more that follow.
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
    bar = progress_bar(steps, label, "step")
    for step in range(steps):
        images, index = pictures.draw(step, batch, generator)
        output = net(to_float(shifted(images, shift, generator)))
        if classes:
            loss = F.cross_entropy(output, targets[index], label_smoothing=0.05)
        else:
            loss = F.mse_loss(output, targets[index])
        remedy = f"lower its learning rate ({learning_rate})"
        finite.check_losses({"loss": loss}, "the feature net's", remedy)
        optimizer.zero_grad()
        loss.backward()
        finite.step(net, optimizer, "the feature net's", remedy)
        schedule.step()
        bar.update()
        if (step + 1) % max(1, steps // 20) == 0:
            bar.tell(f"loss {loss.item():.4g}")
    bar.close()
    net.eval()
    return net, _figure(net, validation.reconstructions, validation_targets[: len(validation)])


@torch.no_grad()
def _figure(net: FeatureNet, reconstructions: Tensor, targets: Tensor) -> dict[str, float]:
    """Accuracy or r2 on reconstructions."""
    output = torch.cat([net(to_float(part)) for part in reconstructions.split(500)])
    if not targets.is_floating_point():
        return {"accuracy": (output.argmax(1) == targets).float().mean().item()}
    residual = (output - targets).square().mean(0) / targets.var(0)
    return {"r2": (1 - residual).mean().item()}


@torch.no_grad()
def stored_features(
    nets: Mapping[str, FeatureNet], vqvae: VQVAE, codes: SplitCodes
) -> dict[str, StoredFeatures]:
    """Each net's features of real images of the test part, up to :data:`STORED`, decoded.

    They are of all test codes, before a bundle leaves some out, and decoded as samples are.
    """
    if not nets:
        return {}
    grids = [grid[:STORED] for grid in codes.grids["test"]]
    found: dict[str, list[np.ndarray]] = {name: [] for name in nets}
    for part in zip(*(grid.split(DECODED) for grid in grids), strict=True):
        images = vqvae.decode(part)
        for name, net in nets.items():
            found[name].append(net.features(images).numpy().astype(np.float16))
    of = f"the first {len(grids[0])} canvases of the test part, their codes decoded"
    return {name: StoredFeatures(np.concatenate(parts), of) for name, parts in found.items()}
