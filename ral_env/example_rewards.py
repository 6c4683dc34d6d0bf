"""Examples of rewards of your own, for ``reward_fn="ral_env.example_rewards:blue"`` and the like.

docs/own-reward.md shows what priors learn from them; :mod:`ral_env.envs.reward_fn` says what such a
function is given and may return.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from ral_env.envs.reward_fn import takes_codes
from ral_env.picture import to_bytes

BLUE = (-0.6, -0.2, 0.8)  # RGB in [-1, 1]


def small_png(images: Tensor) -> Tensor:
    """Minus the size of each image as a PNG file, in kilobytes: plain images are small.

    Args:
        images: float32 (B, 3, H, W) in [-1, 1].

    Returns:
        Float32 (B,), below 0.
    """
    sizes = []
    for pixels in to_bytes(images).transpose(0, 2, 3, 1):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        sizes.append(-len(file.getvalue()) / 1000)
    return torch.tensor(sizes, device=images.device)


def blue(images: Tensor) -> Tensor:
    """How near each of an image's 4x4 patches comes to a blue: minus its mean colour's distance.

    Args:
        images: float32 (B, 3, H, W) in [-1, 1], with a quarter of W in H once or more.

    Returns:
        A map, float32 (B, h', 4), at most 0; h' is 4 for a whole canvas.
    """
    side = images.shape[3] // 4
    colours = torch.nn.functional.avg_pool2d(images, side)  # (B, 3, h', 4)
    target = torch.tensor(BLUE, device=images.device).view(3, 1, 1)
    return -(colours - target).norm(dim=1)


def symmetric(images: Tensor) -> Tensor:
    """Minus the mean absolute difference between each image and its mirror image, left to right.

    Args:
        images: float32 (B, 3, H, W) in [-1, 1].

    Returns:
        Float32 (B,), from -2 to 0.
    """
    return -(images - images.flip(3)).abs().mean((1, 2, 3))


@takes_codes
def many_codes(codes: Sequence[Tensor]) -> Tensor:
    """How many different codes each canvas has, over its cells: 1 if no code comes twice.

    Args:
        codes: int64 (B, h, w), a grid a level.

    Returns:
        Float32 (B,), above 0 and at most 1.
    """
    flat = torch.cat([grid.flatten(1) for grid in codes], 1).sort(1).values
    return (1 + (flat[:, 1:] != flat[:, :-1]).sum(1)).float() / flat.shape[1]
