"""Rewards are what a hand computation from the score map says."""

import numpy as np
import pytest
import torch
from conftest import close
from torch import nn

from ral_env import bundle, reward
from ral_env.envs.single import LatentCanvasEnv
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.nets import PatchGAN, PatchGANConfig, PixelCNN

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
    assert rewards == close([1.5 / 4] * 2)
    assert info["step_rewards"][0] == close([0.0] * 63 + [1.5 / 4])
    assert info["score_map"][1] == close(np.array([[0.5, -1], [1, 1]]))


def test_intermediate_pays_each_code_the_score_at_its_place(tiny):
    env = LatentCanvasVectorEnv(1, tiny, reward="intermediate")
    env.set_discriminator(Known(), reward_scale=1.0)
    _, rewards, *_, info = finish(env)
    expected = np.zeros((8, 8))
    expected[:4, :4], expected[:4, 4:], expected[4:, :4], expected[4:, 4:] = 0.1, -0.2, 0.3, 0.4
    assert info["step_rewards"][0].reshape(8, 8) == close(expected)
    assert rewards[0] == close(0.6 * 16)


def test_intermediate_pays_only_the_codes_that_were_written(tiny):
    env = LatentCanvasVectorEnv(1, tiny, reward="intermediate")
    env.set_discriminator(Known(), reward_scale=1.0)
    _, rewards, *_, info = finish(env, start="continue", rows=6)
    assert info["step_rewards"][0] == close(([0.3] * 4 + [0.4] * 4) * 2)
    _, rewards, *_, info = finish(env, start="scratch", rows=5)  # 20 pixels: one row of patches
    assert info["score_map"][0] == close(MAP[:1].numpy())
    assert info["step_rewards"][0] == close(([0.1] * 4 + [-0.2] * 4) * 5)
    assert rewards[0] == close(-0.1 * 20)


@pytest.mark.parametrize("rows", [3, 8])
def test_a_scratch_canvas_is_decoded_only_as_tall_as_it_is(tiny, rows):
    env = LatentCanvasVectorEnv(2, tiny)
    env.set_discriminator(Brightness(), reward_scale=1.0)
    _, rewards, *_, info = finish(env, start="scratch", rows=rows)
    grid = torch.from_numpy(info["final_canvas"][:, : rows * 8].astype(int)).view(2, rows, 8)
    with torch.no_grad():
        image = env.bundle.vqvae.decode([grid])
    tall = rows * 4 // 8 * 8  # the half patch at the bottom is not scored
    assert rewards == close(image[:, :, :tall].mean((1, 2, 3)).numpy())


def test_a_discriminator_of_codes_is_given_codebook_vectors(tiny_codes):
    env = LatentCanvasVectorEnv(2, tiny_codes, reward="intermediate")
    assert env.min_rows == 4
    *_, info = finish(env)
    codes = torch.from_numpy(info["final_canvas"].astype(int)).view(2, 8, 8)
    with torch.no_grad():
        vectors = env.bundle.vqvae.codebooks[0][codes].permute(0, 3, 1, 2)
        scores = (env.bundle.discriminator(vectors) / 0.05).clamp(-1, 1)[:, 0]
    assert info["score_map"] == close(scores.numpy())
    by_cell = scores.repeat_interleave(4, 1).repeat_interleave(4, 2).flatten(1)
    assert info["step_rewards"] == close(by_cell.numpy())


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


# Steps of an episode at which rowwise pays, and what, by hand from MAP. A row of the top level
# scores 0.4 - 0.8 = -0.4 above the middle and 1.2 + 1.6 = 2.8 below it; the two rows of the bottom
# level beneath it have four times as many cells. An image of fewer than 32 pixels has one row of
# patches, so only the last row of all is ever scored below the middle. Rows 0 to 2 are too few to
# be scored (the patches are 4 rows tall) and are paid with row 3.
ROWWISE = {
    "one level, full": ("tiny", {}, {31: -1.6, 39: -0.4, 47: -0.4, 55: -0.4, 63: 2.8}),
    "one level, continue": ("tiny", {"start": "continue", "rows": 6}, {7: -0.4, 15: 2.8}),
    "one level, continue from one row": (
        "tiny",
        {"start": "continue", "rows": 1},
        {23: -1.2, 31: -0.4, 39: -0.4, 47: -0.4, 55: 2.8},
    ),
    "one level, scratch": ("tiny", {"start": "scratch", "rows": 5}, {31: -1.6, 39: -0.4}),
    "one level, shortest scratch": ("tiny", {"start": "scratch", "rows": 4}, {31: -1.6}),
    # The top level (64 cells) comes first and is paid when the cells beneath it are there.
    "two levels, full": (
        "tiny_two",
        {},
        {191: -8.0, 223: -2.0, 255: -2.0, 287: -2.0, 319: 14.0},
    ),
    "two levels, continue": ("tiny_two", {"start": "continue", "rows": 6}, {47: -2.0, 79: 14.0}),
    "two levels, scratch": ("tiny_two", {"start": "scratch", "rows": 5}, {167: -8.0, 199: -2.0}),
}


@pytest.mark.parametrize("case", ROWWISE)
def test_rowwise_pays_each_row_when_it_is_finished(request, case):
    name, options, paid = ROWWISE[case]
    env = LatentCanvasEnv(request.getfixturevalue(name), reward="rowwise")
    env.set_discriminator(Known(), reward_scale=1.0)
    obs, _ = env.reset(seed=0, options=options)
    rewards, end, info = [], False, {}
    while not end:
        _, earned, end, _, info = env.step(3)
        assert type(earned) is float
        rewards.append(earned)
    expected = np.zeros(int((obs == env.layout.empty).sum()))
    expected[list(paid)] = list(paid.values())
    assert rewards == close(expected)
    assert info["step_rewards"] == close(expected)
    tall = MAP[:1] if options.get("start") == "scratch" else MAP
    assert info["score_map"] == close(tall.numpy())


@pytest.mark.parametrize("name", ["tiny", "tiny_codes", "tiny_two", "tiny_two_codes"])
@pytest.mark.parametrize(
    "options", [{}, {"start": "continue", "rows": 2}, {"start": "scratch", "rows": 6}], ids=str
)
def test_rowwise_pays_what_a_row_scores_in_the_image_down_to_it(request, name, options):
    env = LatentCanvasVectorEnv(2, request.getfixturevalue(name), reward="rowwise")
    *_, info = finish(env, **options)
    rows = options.get("rows", 8)
    first, height = (rows, 8) if options.get("start") == "continue" else (0, rows)
    canvas = torch.from_numpy(info["final_canvas"].astype(int))
    grids = [part.view(2, *level) for part, level in zip(
        canvas.split([h * w for h, w in env.layout.levels], 1), env.layout.levels, strict=True
    )]  # fmt: skip
    top_cells = (height - first) * 8 if len(grids) == 2 else 0
    expected, paid = np.zeros(info["step_rewards"].shape), first
    for row in range(max(first + 1, 4), height + 1):
        crop = [grid[:, : row * grid.shape[1] // 8] for grid in grids]
        with torch.no_grad():
            vectors = env.bundle.vqvae.represent(crop, env.bundle.discriminator_input)
            scores = env.bundle.discriminator(vectors)[:, 0] / env.bundle.reward_scale
        scores = scores.clamp(-1, 1)  # (2, h', 2)
        step = top_cells + (row - first) * grids[-1].shape[2] ** 2 // 8 - 1
        for grid in crop:
            ratio, patch = grid.shape[2] // 8, grid.shape[2] // 2  # rows to a row, to a patch
            for y in range(paid * ratio, row * ratio):
                expected[:, step] += patch * scores[:, min(y // patch, row // 4 - 1)].sum(1).numpy()
        paid = row
    assert info["step_rewards"] == close(expected, env.layout.length // 8)


def test_rowwise_of_a_constant_pays_every_cell_once(tiny_two):
    env = LatentCanvasVectorEnv(2, tiny_two, reward="rowwise", reward_source="constant")
    *_, info = finish(env)
    steps = info["step_rewards"][0]
    assert steps[[191, 223, 255, 287, 319]].tolist() == [160, 40, 40, 40, 40]
    assert steps.sum() == 320


def test_canvases_out_of_step_are_paid_row_by_row_each_for_itself(tiny_two):
    env = LatentCanvasVectorEnv(2, tiny_two, reward="rowwise", autoreset_mode="disabled")
    env.reset(seed=0, options={"start": "continue", "rows": 7})
    mask = np.array([False, True])
    obs, _ = env.reset(options={"start": "continue", "rows": 4, "reset_mask": mask})
    codes = np.where(obs == 16, np.random.default_rng(0).integers(0, 16, obs.shape), obs)
    rewards, info = [], {}
    for _ in range(40):  # to the end of the first, a quarter of the second
        obs, earned, *_, info = env.step(codes[[0, 1], (obs == 16).argmax(1)])
        rewards.append(earned)
    for i, rows in enumerate((7, 4)):
        alone = LatentCanvasVectorEnv(1, tiny_two, reward="rowwise", autoreset_mode="disabled")
        alone.reset(options={"start": "continue", "rows": rows, "codes": codes[i].astype(int)})
        *_, info_alone = alone.complete(codes[i : i + 1])
        steps = info_alone["step_rewards"][0]
        assert np.array(rewards)[:, i] == close(steps[:40], 40)
        assert steps[:40].any() == (i == 0)
    assert info["_rows"].tolist() == [True, False]


def test_intermediate_is_upsampled_to_the_grid_of_each_level(tiny_two):
    env = LatentCanvasVectorEnv(1, tiny_two, reward="intermediate")
    env.set_discriminator(Known(), reward_scale=1.0)

    def by_hand(side: int) -> np.ndarray:
        grid, half = np.zeros((side, side)), side // 2
        grid[:half, :half], grid[:half, half:], grid[half:, :half], grid[half:, half:] = MAP.ravel()
        return grid

    _, rewards, *_, info = finish(env)
    top, bottom = info["step_rewards"][0][:64], info["step_rewards"][0][64:]
    assert top.reshape(8, 8) == close(by_hand(8))
    assert bottom.reshape(16, 16) == close(by_hand(16))
    assert rewards[0] == close(0.6 * (16 + 64))
    *_, info = finish(env, start="continue", rows=6)  # 16 cells of the top, 64 of the bottom
    expected = [*by_hand(8)[6:].ravel(), *by_hand(16)[12:].ravel()]
    assert info["step_rewards"][0] == close(expected)


# --- a score belongs to the code whose place it is ---

NETS = {  # bundle: levels of codes, input, strided layers of a discriminator of small patches
    "tiny": (1, "image", 3),
    "tiny_codes": (1, "codes", 1),
    "tiny_two": (2, "image", 3),
    "tiny_two_codes": (2, "codes", 2),
}


@torch.no_grad()
def look_at_the_middle(net: nn.Module) -> nn.Module:
    """Random weights, but every filter is strongest in its middle, as trained ones mostly are.

    None is negative, so that no unit is off and the nets are as good as linear.
    """
    lines = {4: torch.tensor([1.0, 3, 3, 1]) / 8, 3: torch.tensor([1.0, 2, 1]) / 4}
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.kernel_size[0] > 1:
            line = lines[layer.kernel_size[0]]
            mix = torch.rand(layer.weight.shape[:2]) / layer.in_channels
            layer.weight.copy_(mix[..., None, None] * torch.outer(line, line))
    return net


def scores_of_changes(env: LatentCanvasVectorEnv, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Intermediate scores of a canvas, and of all canvases that differ from it in one cell."""
    length, rng = env.layout.length, np.random.default_rng(seed)
    canvas = rng.integers(0, 16, length)
    changed = np.tile(canvas, (length, 1))
    cells = np.arange(length)
    changed[cells, cells] = (canvas + rng.integers(1, 16, length)) % 16
    scores = []
    envs = LatentCanvasVectorEnv(length, env.bundle, reward="intermediate")
    envs.set_discriminator(env.discriminator, 1000.0)  # nothing is clamped
    for codes in (np.tile(canvas, (length, 1)), changed):  # in batches of one size: equal floats
        envs.reset()
        scores.append(envs.complete(codes)[4]["step_rewards"])
    return scores[0], scores[1]


@pytest.mark.parametrize("name", NETS)
def test_the_score_at_a_codes_place_moves_most_with_it(request, name):
    levels, source, layers = NETS[name]
    loaded = bundle.load(request.getfixturevalue(name))
    torch.manual_seed(0)
    look_at_the_middle(loaded.vqvae)
    loaded.vqvae.codebooks.abs_()
    env = LatentCanvasVectorEnv(1, loaded)
    channels = 3 if source == "image" else 6 * levels
    net = look_at_the_middle(PatchGAN(PatchGANConfig(channels, hidden=8, layers=layers)))
    env.set_discriminator(net, 1000.0)
    moved = np.zeros((env.layout.length, env.layout.length))
    for seed in range(4):
        before, after = scores_of_changes(env, seed)
        moved += abs(after - before)
    itself, most = moved.diagonal(), moved.max(1)  # of each cell's reward, and of any cell's
    # The nets are not linear, so here and there a neighbour comes close.
    assert (itself >= 0.7 * most).all() and (itself == most).mean() > 0.95


def patches_within_reach(cell: int, level: int, name: str) -> tuple[int, int]:
    """First and last patch, along one side, whose score can feel a code. By hand from the nets:
    transposed and strided convolutions are 4 wide, all others 3.
    """
    levels, source, _ = NETS[name]
    low = high = cell
    if level < levels - 1:  # coarser codes are enlarged, or for a discriminator of codes repeated
        low, high = (2 * low - 1, 2 * high + 2) if source == "image" else (2 * low, 2 * high + 1)
    if source == "image":  # a convolution and two residual blocks, then up to pixels
        low, high = low - 3, high + 3
        for _ in range(3 - levels):
            low, high = 2 * low - 1, 2 * high + 2
    low, high = -((2 - low) // 2), (high + 1) // 2  # patch j sees 2j - 1 to 2j + 2
    return low - 1, high + 1


@pytest.mark.parametrize("name", NETS)
def test_scores_beyond_the_reach_of_a_code_do_not_move_at_all(request, name):
    levels, source, _ = NETS[name]
    env = LatentCanvasVectorEnv(1, request.getfixturevalue(name))
    torch.manual_seed(0)
    channels = 3 if source == "image" else 6 * levels
    env.set_discriminator(PatchGAN(PatchGANConfig(channels, hidden=4, layers=1)), 1000.0)
    before, after = scores_of_changes(env, 0)
    moved = after != before
    patches = (32 if source == "image" else 8 * levels) // 2  # along a side
    place = [
        (level, *divmod(cell, side))
        for level, side in enumerate([8, 16][:levels])
        for cell in range(side**2)
    ]
    far = np.zeros_like(moved)
    for i, (level, *cell) in enumerate(place):
        spans = [patches_within_reach(x, level, name) for x in cell]
        for j, (other, *there) in enumerate(place):
            side = 8 * 2**other
            patch = [int((x + 0.5) * patches / side) for x in there]
            far[i, j] = any(
                not low <= x <= high for x, (low, high) in zip(patch, spans, strict=True)
            )
    assert far.any(1).mean() > 0.5 and not moved[far].any()
    assert moved.diagonal().all()


def test_the_normaliser_takes_the_largest_absolute_score_of_both_batches():
    normaliser = reward.Normaliser()
    normaliser.update(torch.tensor([1.0, 2.0]), torch.tensor([-4.0, 3.0]))
    assert normaliser(torch.tensor([2.0, -8.0])).tolist() == [0.5, -1.0]
    other = reward.Normaliser()
    other.load_state_dict(normaliser.state_dict())
    assert other.scale == 4.0
    normaliser.update(torch.zeros(2), torch.zeros(2))
    assert normaliser(torch.zeros(2)).tolist() == [0.0, 0.0]


def test_the_running_normaliser_keeps_a_share_of_the_old_scale():
    normaliser = reward.RunningNormaliser(decay=0.75)
    normaliser.update(torch.tensor([1.0, 2.0]), torch.tensor([-4.0, 3.0]))
    assert normaliser.scale == 4.0  # the first keeps nothing of the 1.0 that it began with
    normaliser.update(torch.tensor([8.0]), torch.tensor([-1.0]))
    assert normaliser.scale == 5.0  # 0.75 * 4 + 0.25 * 8
    normaliser.update(torch.tensor([1.0]), torch.tensor([-3.0]))
    assert normaliser.scale == 4.5  # 0.75 * 5 + 0.25 * 3
    assert normaliser(torch.tensor([2.25, -9.0])).tolist() == [0.5, -1.0]
    resumed = reward.RunningNormaliser(decay=0.75)
    resumed.load_state_dict(normaliser.state_dict())
    for one in (normaliser, resumed):
        one.update(torch.tensor([6.5]), torch.tensor([0.0]))
        assert one.scale == 5.0  # 0.75 * 4.5 + 0.25 * 6.5
    for decay in (1.0, -0.1):
        with pytest.raises(ValueError, match="decay=.*expected"):
            reward.RunningNormaliser(decay=decay)


def test_control_arms(tiny):
    maps = {}
    for source in reward.REWARD_SOURCES:
        env = LatentCanvasVectorEnv(16, tiny, reward_source=source)
        _, rewards, *_, info = finish(env)
        maps[source] = info["score_map"]
        assert rewards == close(maps[source].mean((1, 2)))
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
        with torch.no_grad():
            (oracle,) = env.bundle.oracles
            assert isinstance(oracle, PixelCNN)
            logits = oracle.logits(codes)  # (B, h, w, num_codes)
        nll = nn.functional.cross_entropy(logits.permute(0, 3, 1, 2), codes, reduction="none").sum(
            (1, 2)
        )
        assert info["nll_oracle"] == close(nll.numpy())


def test_nll_oracle_of_two_levels_is_that_of_the_bottom_given_the_top(tiny_two):
    env = LatentCanvasVectorEnv(3, tiny_two)
    top_net, bottom_net = env.bundle.oracles
    assert isinstance(top_net, PixelCNN) and isinstance(bottom_net, PixelCNN)
    for options in ({}, {"start": "continue", "rows": 5}, {"start": "scratch", "rows": 4}):
        *_, info = finish(env, **options)
        rows = options["rows"] if options.get("start") == "scratch" else 8
        codes = torch.from_numpy(info["final_canvas"].astype(int))
        top = codes[:, :64].view(3, 8, 8)[:, :rows]
        bottom = codes[:, 64:].view(3, 16, 16)[:, : 2 * rows]
        nll = np.zeros(3)
        with torch.no_grad():
            for logits, level in (
                (top_net.logits(top), top),
                (bottom_net.logits(bottom, top), bottom),
            ):
                each = nn.functional.cross_entropy(
                    logits.flatten(0, 2), level.flatten(), reduction="none"
                )
                nll += each.view(3, -1).sum(1).numpy()
        assert info["nll_oracle"] == close(nll)
