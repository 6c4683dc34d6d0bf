"""Features of codes for SB3's own policies."""

import torch
from gymnasium import spaces

from agents.sb3 import CodeEmbeddingExtractor
from ral_env.envs.vector import LatentCanvasVectorEnv


def test_features_tell_codes_and_places_apart(tiny):
    torch.manual_seed(0)
    space = LatentCanvasVectorEnv(1, tiny).single_observation_space
    assert isinstance(space, spaces.Box)
    net = CodeEmbeddingExtractor(space, features_dim=32)
    canvas = torch.full((3, 64), 16.0)  # SB3 hands floats over
    canvas[1, 5], canvas[2, 6] = 3, 3
    found = net(canvas)
    assert found.shape == (3, 32)
    assert (found[1] - found[2]).abs().max() > 1e-4
    assert (found[0] - found[1]).abs().max() > 1e-4
