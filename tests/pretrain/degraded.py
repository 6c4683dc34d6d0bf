"""Real canvases made worse in known ways, for nets that should notice."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from agents.evaluation.metrics import frechet_distance
from ral_env.bundle import Bundle
from ral_env.nets import FeatureNet

NOISE = (0.02, 0.05, 0.1)  # shares of codes that are replaced by random ones


def noisy(grids: Sequence[Tensor], share: float, num_codes: int) -> list[Tensor]:
    """Canvases (n, h, w) a level of which a share of the codes is random. More noise of the same
    canvases is the same noise and more."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for grid in grids:
        replaced = torch.rand(grid.shape, generator=generator) < share
        others = torch.randint(num_codes, grid.shape, generator=generator)
        found.append(torch.where(replaced, others, grid))
    return found


def half_swapped(grids: Sequence[Tensor]) -> list[Tensor]:
    """The left half of each canvas with the right half of the one before it."""
    return [
        torch.cat([grid[..., : grid.shape[2] // 2], grid.roll(1, 0)[..., grid.shape[2] // 2 :]], 2)
        for grid in grids
    ]


@torch.no_grad()
def distances(made: Bundle, net: FeatureNet, most: int = 2000) -> dict[str, float]:
    """Fréchet distances, in a net's features, of degraded real canvases to others that are real.

    All of them start from the same training canvases. ``real`` is those as they are; ``noise`` has
    the largest share of random codes; ``mode`` is the half of them that is alike by the first
    principal axis of the features, and ``any half`` as many, chosen blindly. ``0.02 noise`` and so
    on are distances to the same canvases without the noise, which do not depend on how two samples
    of real canvases happen to differ.
    """
    real, grids = (
        [grid[:most] for grid in made.layout.as_grids(made.split(name))]
        for name in ("test", "train")
    )

    def features(grids: Sequence[Tensor], blur: float = 0.0) -> Tensor:
        found = []
        for part in zip(*(grid.split(50) for grid in grids), strict=True):
            images = made.vqvae.decode(part)
            if blur:
                images = gaussian_blur(images, [2 * int(2 * blur + 1) + 1] * 2, [blur] * 2)
            found.append(net.features(images))
        return torch.cat(found)

    expected, plain = features(real), features(grids)
    noise = [features(noisy(grids, share, made.layout.num_codes)) for share in NOISE]
    along = torch.linalg.svd(plain - plain.mean(0), full_matrices=False).Vh[0]
    order = (plain @ along).argsort()
    half = len(order) // 2
    compared = {
        "real": plain,
        "noise": noise[-1],
        "blur": features(grids, blur=made.image_size / 32),
        "half-swapped": features(half_swapped(grids)),
        "mode": plain[order[:half]],
        "any half": plain[:half],
    }
    found = {name: frechet_distance(expected, some) for name, some in compared.items()}
    for share, some in zip(NOISE, noise, strict=True):
        found[f"{share} noise"] = frechet_distance(plain, some)
    return found
