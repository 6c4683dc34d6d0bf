"""A small image network whose features are the named space that Fréchet distances are taken in."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from ral_env.nets.shapes import Features, Inputs, Outputs
from ral_env.ranges import check_ranges


@dataclass(frozen=True)
class FeatureNetConfig:
    """Sizes of a feature network.

    Args:
        in_channels: Number of channels of the image.
        hidden: Number of channels of the first convolution, doubled by each of the two that follow.
        features: Length of the feature vector (the penultimate layer).
        outputs: Number of classes, or of attributes, that it is trained to tell; 0 if there are
            none, or the data set is yet to say it.
        name: Name of this feature space in result tables.
        pool: Side, in pixels, of the squares that an image is averaged over first, so that the net
            sees a large image as a whole; 1 leaves it as it is.

    Raises:
        ValueError: If a size is out of its range.
    """

    in_channels: int = 3
    hidden: int = 16
    features: int = 32
    outputs: int = 10
    name: str = "features"
    pool: int = 1

    def __post_init__(self) -> None:
        check_ranges(
            self,
            in_channels="[1, inf)",
            hidden="[1, inf)",
            features="[1, inf)",
            outputs="[0, inf)",
            pool="[1, inf)",
        )


class FeatureNet(nn.Module):
    """Three strided convolutions, pooling to 2x2, and a feature layer. Images are in [-1, 1].

    What is trained without labels has no outputs, so no head after the feature layer.
    """

    def __init__(self, config: FeatureNetConfig):
        super().__init__()
        self.config = config
        body: list[nn.Module] = []
        channels = config.in_channels
        for width in (config.hidden, 2 * config.hidden, 4 * config.hidden):
            body += [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, stride=2, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.body = nn.Sequential(
            *body,
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(4 * channels, config.features),
        )
        # torch warns of layers without outputs
        head = [nn.ReLU(), nn.Linear(config.features, config.outputs)] if config.outputs else []
        self.head = nn.Sequential(*head)

    def features(self, images: Inputs) -> Features:
        """Images (B, 3, H, W) in [-1, 1] to features (B, features)."""
        return self.body(F.avg_pool2d(images, self.config.pool))

    def forward(self, images: Inputs) -> Outputs:
        """Images (B, 3, H, W) in [-1, 1] to logits or attributes (B, outputs).

        Without outputs, to features (B, features).
        """
        return self.head(self.features(images))
