"""Probe environments: tiny canvases whose reward is known, each asking for one thing to be learnt.

Codes are one-hot vectors, and a probe is a discriminator that looks at them, so every reward goes
the way that a real one does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ral_env.bundle import Bundle
from ral_env.bundle.custom import assemble
from ral_env.nets import PixelCNN, PixelCNNConfig


class OneHot(nn.Module):
    """A codec of 4 x 4 pixels a code: the code's number as a shade of grey."""

    def __init__(self, num_codes: int):
        super().__init__()
        self.num_codes = num_codes

    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        grey = codes[-1].float() / (self.num_codes - 1) * 2 - 1
        grey = grey.repeat_interleave(4, 1).repeat_interleave(4, 2)
        return grey.unsqueeze(1).expand(-1, 3, -1, -1)

    def lookup(self, codes: Sequence[Tensor]) -> list[Tensor]:
        return [F.one_hot(grid, self.num_codes).permute(0, 3, 1, 2).float() for grid in codes]


class Probe(nn.Module):
    """Scores 1 everywhere where the canvas does what is asked, else -1 (or per cell, see below)."""

    stride = 1

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.unused = nn.Parameter(torch.zeros(1))  # a discriminator has something to learn

    def forward(self, x: Tensor) -> Tensor:
        codes = x.argmax(1)  # (B, h, w)
        first, second, last = codes[:, 0, 0], codes[:, 0, 1], codes[:, -1, -1]
        asked = {
            "constant": torch.ones_like(first, dtype=torch.bool),
            "one code": last == 1,
            "code in context": second == first,
            "far code": first == 1,  # and is paid with the last
            "far context": last == first,
        }[self.kind]
        score = asked.float() * 2 - 1
        return score.view(-1, 1, 1, 1).expand(-1, 1, *codes.shape[1:]) + 0 * self.unused


PROBES = ["one code", "code in context", "far code", "far context"]


def probe_bundle(kind: str, side: int = 4, num_codes: int = 3, seed: int = 0) -> Bundle:
    """A canvas of side x side codes, with a prior of random weights."""
    torch.manual_seed(seed)
    config = PixelCNNConfig((side, side), num_codes, 16, 16, 2, 1, dropout=0.0, output_layers=1)
    return assemble(
        codec=OneHot(num_codes),
        discriminator=Probe(kind),
        codes=torch.randint(num_codes, (40, side, side)),
        num_codes=num_codes,
        priors=[PixelCNN(config)],
        discriminator_input="codes",
    )
