"""The example rewards are what their docstrings say, and pay in every environment."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from conftest import close
from PIL import Image

from ral_env import example_rewards as rewards
from ral_env.envs.single import LatentCanvasEnv
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.testing import Case
from ral_env.testing.batch import one_canvas_is_the_first_of_a_batch

NAMES = ["small_png", "blue", "symmetric", "many_codes"]


def test_small_png_prefers_plain_images_to_noise():
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain = torch.zeros(1, 3, 32, 32)
    found = rewards.small_png(torch.cat([noise, plain]))
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 128, np.uint8)).save(file, "PNG")
    assert found[1] == close(-len(file.getvalue()) / 1000)
    assert found[0] < -3 < found[1]  # 3 kB of noise do not compress


def test_blue_is_0_where_a_patch_has_that_blue():
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, :8, 8:16] = torch.tensor(rewards.BLUE).view(3, 1, 1)
    found = rewards.blue(images)
    assert found.shape == (1, 4, 4)
    assert found[0, 0, 1] == close(0) and found[0, 3, 3] == close(-((0.36 + 0.04 + 0.64) ** 0.5))
    assert rewards.blue(images[:, :, :20]).shape == (1, 2, 4)


def test_symmetric_is_0_for_a_mirror_image_alone():
    half = torch.rand(2, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    images = torch.cat([half, half.flip(3)], 3)
    images[1, :, :, 0] += 0.5  # and the other side not
    assert rewards.symmetric(images) == close(torch.tensor([0.0, -0.5 * 2 / 32]))


def test_many_codes_counts_different_codes():
    codes = [torch.tensor([[[0, 0], [0, 0]], [[1, 2], [3, 1]]]), torch.zeros(2, 4, 4).long()]
    assert rewards.many_codes(codes) == close(torch.tensor([1 / 20, 4 / 20]))


@pytest.mark.parametrize("name", NAMES)
def test_an_example_pays_canvases_of_every_height_of_every_batch_alike(tiny, name):
    arguments: dict[str, Any] = {"reward": "rowwise", "reward_fn": f"{rewards.__name__}:{name}"}
    one_canvas_is_the_first_of_a_batch(
        Case(
            lambda: LatentCanvasEnv(str(tiny), **arguments),
            lambda count: LatentCanvasVectorEnv(count, str(tiny), **arguments),
        )
    )
