"""Rewards are what a hand computation from the score map says."""

import numpy as np
import pytest
import torch
from torch import nn

from ral_env import reward
from ral_env.vector import LatentCanvasVectorEnv

MAP = torch.tensor([[0.1, -0.2], [0.3, 0.4]])  # of 32x32 pixels, so 16 to a patch


class Known(nn.Module):
    """Says MAP of every image, cropped to its size."""

    def __init__(self, score_map: torch.Tensor = MAP, stride: int = 16):
        super().__init__()
        self.score_map, self.stride = score_map, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, w = x.shape[2] // self.stride, x.shape[3] // self.stride
        return self.score_map[:h, :w].expand(len(x), 1, h, w)


class Brightness(nn.Module):
    """The mean value of each 8x8 patch of the image."""

    stride = 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x.mean(1, keepdim=True), 8)


def finish(env: LatentCanvasVectorEnv, **options):
    obs, _ = env.reset(seed=0, options=options)
    codes = np.random.default_rng(1).integers(0, 16, obs.shape)
    return env.complete(np.where(obs == env.layout.empty, codes, obs))


def test_single_pays_the_mean_of_the_normalised_map_at_the_end(tiny):
    env = LatentCanvasVectorEnv(2, tiny)
    env.set_discriminator(Known(), reward_scale=0.2)
    _, rewards, *_, info = finish(env)
    # normalised: 0.5, -1 (-0.2 / 0.2), 1 (clamped), 1 (clamped)
    assert rewards == pytest.approx([1.5 / 4] * 2)
    assert info["step_rewards"][0] == pytest.approx([0.0] * 63 + [1.5 / 4])
    assert info["score_map"][1] == pytest.approx(np.array([[0.5, -1], [1, 1]]))


def test_intermediate_pays_each_code_the_score_at_its_own_place(tiny):
    env = LatentCanvasVectorEnv(1, tiny, reward="intermediate")
    env.set_discriminator(Known(), reward_scale=1.0)
    _, rewards, *_, info = finish(env)
    expected = np.zeros((8, 8))
    expected[:4, :4], expected[:4, 4:], expected[4:, :4], expected[4:, 4:] = 0.1, -0.2, 0.3, 0.4
    assert info["step_rewards"][0].reshape(8, 8) == pytest.approx(expected)
    assert rewards[0] == pytest.approx(0.6 * 16)


def test_intermediate_pays_only_the_codes_that_were_written(tiny):
    env = LatentCanvasVectorEnv(1, tiny, reward="intermediate")
    env.set_discriminator(Known(), reward_scale=1.0)
    _, rewards, *_, info = finish(env, start="continue", rows=6)
    assert info["step_rewards"][0] == pytest.approx(([0.3] * 4 + [0.4] * 4) * 2)
    _, rewards, *_, info = finish(env, start="scratch", rows=5)  # 20 pixels: one row of patches
    assert info["score_map"][0] == pytest.approx(MAP[:1].numpy())
    assert info["step_rewards"][0] == pytest.approx(([0.1] * 4 + [-0.2] * 4) * 5)
    assert rewards[0] == pytest.approx(-0.1 * 20)


@pytest.mark.parametrize("rows", [3, 8])
def test_a_scratch_canvas_is_decoded_only_as_tall_as_it_is(tiny, rows):
    env = LatentCanvasVectorEnv(2, tiny)
    env.set_discriminator(Brightness(), reward_scale=1.0)
    _, rewards, *_, info = finish(env, start="scratch", rows=rows)
    grid = torch.from_numpy(info["final_canvas"][:, : rows * 8].astype(int)).view(2, rows, 8)
    with torch.no_grad():
        image = env.bundle.vqvae.decode([grid])
    tall = rows * 4 // 8 * 8  # the half patch at the bottom is not scored
    assert rewards == pytest.approx(image[:, :, :tall].mean((1, 2, 3)).numpy(), abs=1e-6)


def test_a_discriminator_of_codes_is_given_codebook_vectors(tiny_codes):
    env = LatentCanvasVectorEnv(2, tiny_codes, reward="intermediate")
    assert env.min_rows == 4
    *_, info = finish(env)
    codes = torch.from_numpy(info["final_canvas"].astype(int)).view(2, 8, 8)
    with torch.no_grad():
        vectors = env.bundle.vqvae.codebooks[0][codes].permute(0, 3, 1, 2)
        scores = (env.bundle.discriminator(vectors) / 0.05).clamp(-1, 1)[:, 0]
    assert info["score_map"] == pytest.approx(scores.numpy(), abs=1e-6)
    by_cell = scores.repeat_interleave(4, 1).repeat_interleave(4, 2).flatten(1)
    assert info["step_rewards"] == pytest.approx(by_cell.numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("size", "cells", "stride", "expected"),
    [
        (2, 4, 2, [0, 0, 1, 1]),
        (2, 5, 2, [0, 0, 1, 1, 1]),  # floored map: the row left over takes the last score
        (2, 5, 2.5, [0, 0, 1, 1, 1]),  # centres 0.5 .. 4.5 in blocks [0, 2.5), [2.5, 5)
        (4, 2, 0.5, [1, 3]),  # two patches to a code: the one behind its centre
        (3, 3, 1, [0, 1, 2]),
    ],
)
def test_upsampling_stays_aligned(size, cells, stride, expected):
    score_map = torch.arange(size).float().expand(size, size)[None, None]
    assert reward.upsample(score_map, (cells, cells), stride)[0, 0].tolist() == expected
    turned = score_map.transpose(2, 3)
    assert reward.upsample(turned, (cells, cells), stride)[0, :, 0].tolist() == expected


def test_the_normaliser_takes_the_largest_absolute_score_of_both_batches():
    normaliser = reward.Normaliser()
    normaliser.update(torch.tensor([1.0, 2.0]), torch.tensor([-4.0, 3.0]))
    assert normaliser(torch.tensor([2.0, -8.0])).tolist() == [0.5, -1.0]
    other = reward.Normaliser()
    other.load_state_dict(normaliser.state_dict())
    assert other.scale == 4.0
    normaliser.update(torch.zeros(2), torch.zeros(2))
    assert normaliser(torch.zeros(2)).tolist() == [0.0, 0.0]


def test_control_arms(tiny):
    maps = {}
    for source in reward.REWARD_SOURCES:
        env = LatentCanvasVectorEnv(16, tiny, reward_source=source)
        _, rewards, *_, info = finish(env)
        maps[source] = info["score_map"]
        assert rewards == pytest.approx(maps[source].mean((1, 2)), abs=1e-6)
    truth = maps["discriminator"]
    assert (maps["constant"] == 1).all()
    assert len(np.unique(maps["random"])) == maps["random"].size
    assert abs(maps["random"]).max() <= 1 and abs(maps["random"]).max() > 0.5
    assert not np.array_equal(maps["shuffled"], truth)
    assert np.array_equal(np.sort(maps["shuffled"].mean((1, 2))), np.sort(truth.mean((1, 2))))


def test_shuffling_one_canvas_is_refused(tiny):
    env = LatentCanvasVectorEnv(1, tiny, reward_source="shuffled")
    with pytest.raises(ValueError, match="two or more canvases"):
        finish(env)


def test_a_score_that_is_not_finite_is_refused(tiny):
    env = LatentCanvasVectorEnv(2, tiny)
    env.set_discriminator(Known(torch.tensor([[0.1, float("nan")], [float("inf"), 0]])), 1.0)
    with pytest.raises(ValueError, match="4 of 8 scores are not finite.*discriminator"):
        finish(env)


def test_nll_oracle_is_that_of_all_cells_in_nats(tiny):
    env = LatentCanvasVectorEnv(2, tiny)
    for options in ({}, {"start": "continue", "rows": 5}, {"start": "scratch", "rows": 4}):
        *_, info = finish(env, **options)
        rows = options["rows"] if options.get("start") == "scratch" else 8
        codes = torch.from_numpy(info["final_canvas"].astype(int)).view(2, 8, 8)[:, :rows]
        assert len(env.bundle.oracles) == 1
        with torch.no_grad():
            logits = env.bundle.oracles[0].logits(codes)  # (B, h, w, num_codes)
        nll = nn.functional.cross_entropy(logits.permute(0, 3, 1, 2), codes, reduction="none").sum(
            (1, 2)
        )
        assert info["nll_oracle"] == pytest.approx(nll.numpy(), rel=1e-5)
