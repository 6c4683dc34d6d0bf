"""A feature net that no one tells what is in an image learns from pairs of views: VICReg.

A. Bardes, J. Ponce, Y. LeCun: VICReg: Variance-Invariance-Covariance Regularization for
Self-Supervised Learning, 2022, arXiv 2105.04906.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.training import finite
from agents.training.progress import progress_bar
from pretrain.configs import SelfSupervision
from pretrain.pictures import Pictures
from pretrain.pixels import to_float
from ral_env.nets import FeatureNet


def fit_views(
    settings: SelfSupervision,
    pictures: Pictures,
    validation: Pictures,
    seed: int = 0,
    label: str = "",
) -> tuple[FeatureNet, dict[str, float]]:
    """Train a feature net without labels; what expands its features in the loss is thrown away.

    Args:
        settings: Sizes of the net, and how it learns.
        pictures: What it learns from.
        validation: What its figures are measured on.
        seed: Seed of the weights, of the images of each update and of the views.
        label: Name of the progress bar; none is shown if empty.

    Returns:
        The net and its figures, see :func:`figures`.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = FeatureNet(settings.net)
    expander = _expander(settings.net.features, settings.expander)
    parameters = [*net.parameters(), *expander.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    net.train()
    bar = progress_bar(settings.steps, label, "step")
    remedy = f"lower its learning rate ({settings.learning_rate})"
    for step in range(settings.steps):
        batch, _ = pictures.draw(step, settings.batch, generator)
        x = to_float(batch)
        both = torch.cat([view(x, settings, generator) for _ in range(2)])
        one, other = expander(net(both)).chunk(2)
        terms = vicreg_loss(one, other, settings)
        finite.check_losses(terms, "the feature net's", remedy)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        finite.step(net, optimizer, "the feature net's", remedy)
        bar.update()
        schedule.step()
        if (step + 1) % max(1, settings.steps // 20) == 0:
            shown = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
            bar.tell(shown)
    bar.close()
    net.eval()
    return net, figures(net, validation)


def _expander(features: int, width: int) -> nn.Sequential:
    """Two hidden layers, as in the paper's section 4.2, and an output of the same width."""
    layers: list[nn.Module] = []
    for inputs in (features, width):
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, width))


def view(images: Tensor, settings: SelfSupervision, generator: torch.Generator) -> Tensor:
    """A random view of each image (n, 3, S, S) in [-1, 1].

    It is moved by whole pixels, its edges repeated, and its contrast, brightness and colours are
    changed. Every second view is enlarged or reduced, which blurs it a little; if all were, the
    net could not tell blurred images from sharp ones.
    """
    count, size = len(images), images.shape[-1]

    def draw(width: int, largest: float) -> Tensor:
        """Uniform numbers (n, width) between plus and minus the largest."""
        return (2 * torch.rand(count, width, generator=generator) - 1) * largest

    where = torch.zeros(count, 2, 3)
    scaled = torch.arange(count) % 2
    where[:, 0, 0] = where[:, 1, 1] = 1 + draw(1, settings.scale)[:, 0] * scaled
    where[:, :, 2] = draw(2, settings.shift * size).round() * 2 / size  # the image's side is 2
    places = F.affine_grid(where, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, places, padding_mode="border", align_corners=False)
    contrast = 1 + draw(1, settings.contrast)
    colours = draw(1, settings.brightness) + draw(3, settings.colour)
    return (moved * contrast[..., None, None] + colours[..., None, None]).clamp(-1, 1)


def vicreg_loss(a: Tensor, b: Tensor, settings: SelfSupervision) -> dict[str, Tensor]:
    """Eq. 6 of VICReg, of expanded features (n, d) of two views: its three weighted terms.

    As in the authors' code, for which their weights are, distances are a mean over d (in Eq. 5 a
    sum) and the variance's term is a mean over the two views.
    """
    variance = covariance = torch.zeros(())
    for some in (a, b):
        centred = some - some.mean(0)
        deviations = (centred.square().sum(0) / (len(some) - 1) + 1e-4).sqrt()
        variance = variance + F.relu(1 - deviations).mean() / 2  # Eq. 1
        products = centred.T @ centred / (len(some) - 1)
        off_diagonal = products.square().sum() - products.diagonal().square().sum()
        covariance = covariance + off_diagonal / some.shape[1]  # Eq. 4
    return {
        "invariance": settings.invariance * F.mse_loss(a, b),  # Eq. 5
        "variance": settings.variance * variance,
        "covariance": settings.covariance * covariance,
    }


@torch.no_grad()
def figures(net: FeatureNet, pictures: Pictures) -> dict[str, float]:
    """Whether a net's features tell images apart: the first thousand of some.

    Returns:
        ``retrieval``: share of reconstructions whose features are nearer to those of their own
        image than to those of any other; ``effective_rank``: exp of the entropy of the shares of
        variance along the features' principal axes, 1 if they have collapsed to a line. Nothing
        where there is only one image.
    """
    if len(pictures.images) < 2:
        return {}
    real, again = (
        torch.cat([net.features(to_float(part)) for part in some[:1000].split(500)])
        for some in (pictures.images, pictures.reconstructions)
    )
    own = torch.cdist(again, real).argmin(1) == torch.arange(len(real))
    share = torch.linalg.eigvalsh(torch.cov(real.double().T)).clamp(min=0)
    share = share / share.sum()
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    return {"retrieval": own.float().mean().item(), "effective_rank": entropy.exp().item()}
