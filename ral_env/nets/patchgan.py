"""PatchGAN: one score for each patch (paper section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ral_env.nets.shapes import Inputs, ScoreMap
from ral_env.ranges import check_ranges


@dataclass(frozen=True)
class PatchGANConfig:
    """Sizes of a PatchGAN.

    Args:
        in_channels: Number of channels of the input: 3 for images, ``levels * code_dim`` for
            codebook vectors.
        hidden: Number of channels of the first convolution; they double with each strided one, up
            to eight times as many.
        layers: Number of strided convolutions. The paper's 5 make a 4x4 map from 128x128 pixels.
        plain_layers: Number of convolutions without stride that come first (for small inputs, where
            strides would soon leave one patch).
        dropout: Share of channels that is dropped after each convolution in training.
        global_head: Whether one score of the whole (pooled) input is added to every patch's.

    Raises:
        ValueError: If a size is out of its range.
    """

    in_channels: int = 3
    hidden: int = 64
    layers: int = 5
    plain_layers: int = 0
    dropout: float = 0.0
    global_head: bool = False

    def __post_init__(self) -> None:
        check_ranges(
            self,
            in_channels="[1, inf)",
            hidden="[1, inf)",
            layers="[0, inf)",
            plain_layers="[0, inf)",
            dropout="[0, 1)",
        )


class PatchGAN(nn.Module):
    """A discriminator that scores each patch of its input.

    It is fully convolutional, so it takes inputs of any size of at least :attr:`stride` cells.
    No normalisation layers: the gradient penalty is of each input by itself (WGAN-GP, Eq. 5).
    """

    def __init__(self, config: PatchGANConfig):
        super().__init__()
        self.config = config
        body: list[nn.Module] = []
        channels, width = config.in_channels, config.hidden
        for _ in range(config.plain_layers):
            body += [nn.Conv2d(channels, width, 3, padding=1), *self._activation()]
            channels = width
        for layer in range(config.layers):
            width = config.hidden * min(2**layer, 8)
            body += [nn.Conv2d(channels, width, 4, stride=2, padding=1), *self._activation()]
            channels = width
        self.body = nn.Sequential(*body)
        self.patch = nn.Conv2d(channels, 1, 3, padding=1)
        self.whole = nn.Linear(channels, 1) if config.global_head else None

    def _activation(self) -> list[nn.Module]:
        drop = [nn.Dropout2d(self.config.dropout)] if self.config.dropout else []
        return [nn.LeakyReLU(0.2), *drop]

    @property
    def stride(self) -> int:
        """Cells of the input (pixels or codes) from one patch to the next."""
        return 2**self.config.layers

    def forward(self, x: Inputs) -> ScoreMap:
        """Inputs (B, in_channels, H, W) to the score map (B, 1, H // stride, W // stride).

        Real is high. Scores are not bounded.

        Raises:
            ValueError: If the input has other channels or is smaller than the stride.
        """
        if x.dim() != 4 or x.shape[1] != self.config.in_channels or min(x.shape[2:]) < self.stride:
            raise ValueError(
                f"input has shape {tuple(x.shape)}, expected (B, {self.config.in_channels}, H, W) "
                f"with H and W of at least {self.stride}"
            )
        features = self.body(x)
        score_map = self.patch(features)  # (B, 1, h', w')
        if self.whole is not None:
            score_map = score_map + self.whole(features.mean((2, 3)))[:, :, None, None]
        return score_map
