"""The distance of reconstructions, against our own Fréchet distance."""

import pytest
import torch

from pretrain import data, distance
from pretrain.pixels import to_bytes, to_float
from ral_env import bundle


def test_the_distance_of_reconstructions_is_the_frechet_distance_of_their_features():
    from agents.evaluation.metrics import frechet_distance

    made = bundle.load("digits")
    images = torch.as_tensor(data.load("digits", 32).part("test")[:200])
    found = distance.reconstruction(made.vqvae, images, made.features)
    assert made.features is not None
    with torch.no_grad():
        x = to_float(images)
        again = to_float(to_bytes(made.vqvae.decode(made.vqvae.encode(x))))
        expected = frechet_distance(made.features.features(x), made.features.features(again))
    assert found["features"] == pytest.approx(expected, rel=1e-3)
    assert (found["images"], found["space"]) == (200, "digit classes, 32-d")
    with pytest.raises(ValueError, match=r"no file .*nowhere.pth: expected the weights"):
        distance.reconstruction(made.vqvae, images, None, "nowhere.pth")
    assert distance.reconstruction(made.vqvae, images, None) == {"images": 200}
