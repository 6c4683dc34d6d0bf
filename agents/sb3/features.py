"""Features of codes for SB3's own policies."""

from __future__ import annotations

import gymnasium as gym
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn


class CodeEmbeddingExtractor(BaseFeaturesExtractor):
    """Features of a canvas for SB3's own policies, which would take codes for magnitudes.

    Each cell's code, EMPTY and OUTSIDE included, is embedded and given its place; a linear layer
    sees all cells.

    Args:
        observation_space: that of one of our environments, canvases (length,).
        features_dim: number of features.
        embedding_dim: number of dimensions that each cell's code is embedded in.
    """

    def __init__(
        self, observation_space: gym.spaces.Box, features_dim: int = 256, embedding_dim: int = 16
    ):
        super().__init__(observation_space, features_dim)
        (length,) = observation_space.shape
        codes = int(observation_space.high.max()) + 1
        self.embedding = nn.Embedding(codes, embedding_dim)
        self.place = nn.Parameter(0.1 * torch.randn(length, embedding_dim))
        self.whole = nn.Sequential(nn.Linear(length * embedding_dim, features_dim), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        """Maps canvases (B, length), of any dtype, to features (B, features_dim)."""
        cells = self.embedding(observations.long()) + self.place  # (B, length, embedding_dim)
        return self.whole(cells.flatten(1))
