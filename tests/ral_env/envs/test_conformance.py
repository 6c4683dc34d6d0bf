"""Every environment id keeps the same promises, on whatever bundle it runs."""

import copy
import pickle
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close, tiny_parts
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from test_contracts import assert_alike
from test_episode import fill

import ral_env
from ral_env import bundle
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.nets import (
    VQVAE,
    PatchGAN,
    PatchGANConfig,
    PixelCNN,
    PixelCNNConfig,
    VQVAEConfig,
)
from ral_env.tasks import TASKS

ANY = "RALBundle-v0"  # runs on two levels here
FEW = pytest.mark.parametrize("name", ["RALFaces32-v0", ANY], indirect=True)
KEYS = {"final_canvas", "step_rewards", "score_map", "start", "rows"}

pytestmark = pytest.mark.filterwarnings("ignore::ral_env.StandInWarning")


@pytest.fixture(params=[*TASKS, ANY])
def name(request) -> str:
    return request.param


@pytest.fixture
def settings(name, tiny_two) -> dict[str, Any]:
    return {"bundle": str(tiny_two)} if name == ANY else {}


@pytest.fixture
def make(name, settings):
    return partial(gym.make, name, **settings)


@pytest.fixture
def make_vec(name, settings):
    return partial(gym.make_vec, name, **settings)


def short(env) -> dict[str, Any]:
    """Options of the shortest episodes: one coarsest row is to be written, the rest is real."""
    return {"start": "continue", "rows": env.unwrapped.layout.rows - 1}


def finish(env: gym.Env, seed: int = 0) -> list[tuple]:
    """Step with random codes until the end; the results of every step."""
    codes, results = np.random.default_rng(seed), []
    while not results or not results[-1][2]:
        results.append(env.step(codes.integers(env.action_space.n)))
    return results


def assert_same_results(a: list[tuple], b: list[tuple]) -> None:
    assert len(a) == len(b)
    for (obs, reward, *ends, info), (other, reward_, *ends_, info_) in zip(a, b, strict=True):
        assert np.array_equal(obs, other) and ends == ends_ and info.keys() == info_.keys()
        assert reward == reward_ and all(np.array_equal(info[key], info_[key]) for key in info)


# --- what an id is ---


def test_spaces_and_layout_are_the_tasks(name, make):
    env = make().unwrapped
    levels, num_codes, size = ((8, 8), (16, 16)), 16, 32  # of tiny_two
    if name in TASKS:
        levels, num_codes, size = (
            getattr(TASKS[name], key) for key in ("levels", "num_codes", "image_size")
        )
    length = sum(h * w for h, w in levels)
    assert env.observation_space == gym.spaces.Box(0, num_codes + 1, (length,), np.int16)
    assert env.action_space == gym.spaces.Discrete(num_codes)
    assert (env.layout.levels, env.layout.num_codes) == (levels, num_codes)
    assert env.layout.length == length and env.bundle.image_size == size
    obs, _ = env.reset()
    assert obs.dtype == np.int16 and (obs == num_codes).all()


def test_an_id_runs_on_its_own_bundle_or_says_on_which(name, make):
    if name == ANY:
        return
    task = TASKS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        used = make().unwrapped.bundle
    own, stands_in = bundle.choose(task)
    assert used.path.name == own and stands_in == (own != task.bundle)
    assert [w.category for w in caught] == [ral_env.StandInWarning] * stands_in
    assert used.dataset and used.recipe["command"].startswith("ral pretrain --recipe")


def test_shipped_bundles_are_small():
    shipped = sorted({task.stand_in or task.bundle for task in TASKS.values()})
    sizes = {
        name: sum(file.stat().st_size for file in (bundle.SHIPPED / name).glob("*")) / 1e6
        for name in shipped
    }
    assert min(sizes.values()) > 0, sizes
    assert max(sizes.values()) <= 3, sizes
    stand_ins = {task.stand_in for task in TASKS.values()} - {None}
    assert sum(sizes[name] for name in stand_ins) <= 12, sizes


def test_gymnasiums_check_passes_in_every_render_mode_without_a_warning(make, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    check_env(make(render_mode="rgb_array", reward="rowwise").unwrapped)


def test_stable_baselines_check_passes_without_a_warning(make):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(make(render_mode="rgb_array", start="continue").unwrapped)


def test_a_spec_survives_json(name, make):
    env = make(reward="intermediate", start="scratch")
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec and again.spec.id == name
    assert again.unwrapped.bundle.path == env.unwrapped.bundle.path
    for one in (env, again):
        one.reset(seed=3)
        one.reset(seed=3, options=short(one))
    assert_same_results(finish(env), finish(again))


@pytest.mark.parametrize("how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_made_mid_episode_goes_on_by_itself(make, how):
    env = make(reward="rowwise", start="continue").unwrapped
    env.reset(seed=1, options=short(env))
    env.step(2)
    other = how(env)
    assert_same_results(finish(env), finish(other))
    # Each has a generator of its own: they draw the same, and neither's draws move the other's.
    assert other.np_random is not env.np_random
    for _ in range(2):
        assert np.array_equal(env.reset()[0], other.reset()[0])
    before = copy.deepcopy(other.np_random.bit_generator.state)
    env.reset()
    assert other.np_random.bit_generator.state == before


# --- one episode, alone and in a batch ---


def test_native_and_sync_vector_environments_agree(make_vec):
    own = make_vec(num_envs=2, vectorization_mode="vector_entry_point", reward="rowwise")
    sync = make_vec(num_envs=2, vectorization_mode="sync", reward="rowwise")
    assert isinstance(own.unwrapped, LatentCanvasVectorEnv)
    assert own.observation_space == sync.observation_space
    assert own.action_space == sync.action_space
    options, codes = short(own), np.random.default_rng(0)
    obs, theirs = (envs.reset(seed=4, options=options)[0] for envs in (own, sync))
    steps = sum(h * w // own.layout.rows for h, w in own.layout.levels)
    for _ in range(steps):
        assert obs.dtype == theirs.dtype and np.array_equal(obs, theirs)
        actions = codes.integers(0, own.layout.num_codes, 2)
        obs, *mine, info = own.step(actions)
        theirs, *others, their_info = sync.step(actions)
        for a, b in zip(mine, others, strict=True):
            assert a.dtype == b.dtype and a == close(b, steps)
        assert_alike(info, their_info, steps)
    assert mine[1].all() and info["score_map"].shape[0] == 2


def test_a_seed_is_an_episode_alone_and_as_first_of_a_batch(make, make_vec):
    env = make(reward="intermediate").unwrapped
    first, _ = env.reset(seed=5, options=short(env))
    results = finish(env)
    again, _ = env.reset(seed=5, options=short(env))
    assert np.array_equal(first, again)
    assert_same_results(results, finish(env))
    envs = make_vec(num_envs=2, reward="intermediate")
    batch, _ = envs.reset(seed=5, options=short(env))
    assert np.array_equal(batch[0], first) and not np.array_equal(batch[1], first)
    obs, rewards, terminated, _, info = envs.complete(
        np.stack([results[-1][0], fill(envs, batch)[1]])
    )
    assert np.array_equal(obs[0], results[-1][0]) and terminated.all()
    assert rewards[0] == close(results[-1][1], len(results))
    for key, value in results[-1][4].items():
        assert info[key][0] == (value if isinstance(value, str) else close(value))


def test_the_order_of_a_batch_does_not_matter(make_vec):
    order = [2, 0, 1]
    envs = make_vec(num_envs=3, reward="intermediate")
    envs.set_discriminator(envs.discriminator, 10 * envs.reward_scale)  # next to none is clamped
    first, _ = envs.reset(seed=[7, 8, 9], options=short(envs))
    codes = fill(envs, first)
    _, rewards, *_, info = envs.complete(codes)
    obs, _ = envs.reset(seed=[9, 7, 8], options=short(envs))
    assert np.array_equal(obs, first[order]) and len({*rewards}) == 3
    _, permuted, *_, other = envs.complete(codes[order])
    assert permuted == close(rewards[order], info["step_rewards"].shape[1])
    for key in ("step_rewards", "score_map"):
        assert other[key] == close(info[key][order])


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_both_autoresets_begin_anew_after_the_end(make_vec, mode):
    envs = make_vec(num_envs=2, autoreset_mode=mode)  # later episodes are full ones
    assert envs.metadata["autoreset_mode"] is AutoresetMode[mode.upper()]
    obs, _ = envs.reset(seed=0, options=short(envs))
    codes = fill(envs, obs)
    obs, rewards, terminated, truncated, info = envs.complete(codes)
    assert terminated.all() and not truncated.any() and (rewards != 0).all()
    if mode == "next_step":
        assert np.array_equal(obs, codes)
        obs, rewards, terminated, _, later = envs.step(np.zeros(2, int))
        assert not rewards.any() and not terminated.any() and later == {}
    else:
        assert np.array_equal(np.stack(info["final_obs"]), codes)
        info = info["final_info"]
    assert (obs == envs.layout.empty).all()
    assert (envs.step(np.ones(2, int))[0][:, :2] == [1, envs.layout.empty]).all()
    assert np.array_equal(info["final_canvas"], codes)


def test_the_final_info_says_what_is_promised(name, make):
    env = make(reward="intermediate")
    env.reset(seed=0, options=short(env))
    *before, (obs, reward, terminated, truncated, info) = finish(env)
    assert all(step[1:] == (0.0, False, False, {}) for step in before)
    assert (terminated, truncated, type(reward)) == (True, False, float)
    oracle = env.unwrapped.bundle.oracles
    assert bool(oracle) == ("Oracle" in name or name == ANY)
    assert set(info) == KEYS | ({"nll_oracle"} if oracle else set())
    assert (info["start"], info["rows"]) == tuple(short(env).values())
    assert info["final_canvas"].dtype == np.int16 and np.array_equal(info["final_canvas"], obs)
    assert info["step_rewards"].dtype == info["score_map"].dtype == np.float32
    assert info["step_rewards"].shape == (len(before) + 1,) and info["score_map"].ndim == 2
    assert abs(info["score_map"]).max() <= 1
    assert reward == close(info["step_rewards"].sum(dtype=float))
    if oracle:  # between the best and the worst that a prior could say of so many codes
        assert 0 < info["nll_oracle"] < 30 * env.unwrapped.layout.length


# --- Gymnasium's wrappers ---


@FEW
def test_a_time_limit_truncates_without_a_reward(make):
    env = make(max_episode_steps=3)
    for _ in range(2):
        env.reset(seed=0)
        ends = [env.step(1)[1:] for _ in range(3)]
        assert ends == [(0.0, False, False, {})] * 2 + [(0.0, False, True, {})]
    env.reset(options=short(env))


@FEW
def test_gymnasiums_wrappers_work(make):
    env = make(render_mode="rgb_array")
    flat = gym.wrappers.FlattenObservation(env)
    assert flat.observation_space == env.observation_space
    rendered = gym.wrappers.RenderCollection(gym.wrappers.RecordEpisodeStatistics(flat))
    obs, _ = rendered.reset(seed=0, options=short(env))
    assert obs in flat.observation_space
    results = finish(rendered)
    info = results[-1][4]
    assert info["episode"]["l"] == len(results)
    assert info["episode"]["r"] == close(results[-1][1])
    frames = rendered.render()
    assert len(frames) == len(results) + 1 and {f.shape for f in frames} == {(256, 256, 3)}
    assert not np.array_equal(frames[0], frames[-1])


@FEW
def test_a_video_is_recorded(make, tmp_path):
    pytest.importorskip("moviepy")
    env = gym.wrappers.RecordVideo(make(render_mode="rgb_array"), str(tmp_path / "videos"))
    env.reset(seed=0, options=short(env))
    finish(env)
    env.close()
    assert [file.stat().st_size > 0 for file in tmp_path.glob("videos/*.mp4")] == [True]


@FEW
@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_gymnasiums_vector_wrappers_work(make_vec, mode):
    inner = make_vec(num_envs=2, reward="intermediate", autoreset_mode=mode)
    counted = gym.wrappers.vector.RecordEpisodeStatistics(inner)
    listed = gym.wrappers.vector.DictInfoToList(counted)
    obs, info = listed.reset(seed=0, options=short(inner))
    assert info == [{}, {}]
    for _ in range(int((obs[0] == inner.layout.empty).sum())):
        _, rewards, *_, info = listed.step(np.ones(2, int))
    for i in range(2):
        assert info[i]["episode"]["r"] == close(rewards[i])
        final = info[i] if mode == "next_step" else info[i]["final_info"]
        assert set(final) >= KEYS and final["rows"] == inner.layout.rows - 1
        assert final["step_rewards"].sum(dtype=float) == close(rewards[i])


@FEW
@pytest.mark.xfail(strict=True, raises=BufferError, reason="Gymnasium converts no strings (start)")
def test_an_episode_of_tensors_ends(make_vec):
    pytest.importorskip("array_api_compat")
    inner = make_vec(num_envs=2)
    envs = gym.wrappers.vector.NumpyToTorch(inner)
    envs.reset(seed=0)
    for _ in range(inner.layout.length):
        obs, rewards, *_, info = envs.step(torch.ones(2, dtype=torch.int64))
        assert isinstance(rewards, torch.Tensor) and obs.dtype == torch.int16
    assert torch.equal(info["final_canvas"], obs)


# --- other processes ---


def test_a_fresh_interpreter_makes_a_prefixed_id():
    ids = ["RALDigits-v0", "RALCelebA128-v0", "RALOracleTwoLevel-v0"]
    code = (
        "import sys, gymnasium\n"
        "for id in sys.argv[1:]:\n"
        "    env = gymnasium.make('ral_env:' + id)\n"
        "    print(env.spec.id, env.reset()[0].size, env.step(0)[1:])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *ids], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sizes = [sum(h * w for h, w in TASKS[id].levels) for id in ids]
    assert done.stdout.splitlines() == [
        f"{id} {size} (0.0, False, False, {{}})" for id, size in zip(ids, sizes, strict=True)
    ]


def test_a_spawned_worker_makes_a_prefixed_id():
    envs = gym.make_vec(
        "ral_env:RALFaces32-v0",
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"context": "spawn"},
    )
    try:
        obs, _ = envs.reset(seed=0, options={"start": "continue", "rows": 7})
        own = gym.make_vec("RALFaces32-v0", num_envs=2)
        assert np.array_equal(obs, own.reset(seed=0, options={"start": "continue", "rows": 7})[0])
        for actions in np.random.default_rng(0).integers(0, 64, (8, 2)):
            (obs, rewards, *ends, info), expected = envs.step(actions), own.step(actions)
            assert np.array_equal(obs, expected[0])
            assert rewards == close(expected[1])
        assert ends[0].all() and np.array_equal(info["final_canvas"], obs)
    finally:
        envs.close()


# --- which bundle ---

STANDING_IN = [id for id, task in TASKS.items() if task.stand_in]


@pytest.fixture
def empty_home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RAL_ENV_HOME", str(tmp_path))
    return tmp_path / "bundles"


@pytest.mark.parametrize("id", STANDING_IN)
def test_a_stand_in_is_announced_once_with_the_command_that_replaces_it(empty_home, id):
    task = TASKS[id]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = gym.make_vec(id)
    (warning,) = caught
    assert warning.category is ral_env.StandInWarning
    text = str(warning.message)
    assert f"`ral pretrain --recipe {task.bundle} --data FOLDER --out " in text
    assert str(empty_home / task.bundle) in text
    for truth in (id, task.images, repr(task.stand_in), env.unwrapped.bundle.dataset):
        assert truth in text
    assert "procedural faces" in env.unwrapped.bundle.dataset


def test_the_command_names_a_recipe_that_there_is():
    recipes = pytest.importorskip("pretrain.recipes").RECIPES
    assert {task.bundle for task in TASKS.values()} <= set(recipes)
    assert {task.stand_in for task in TASKS.values()} - {None} <= set(recipes)


@pytest.mark.parametrize("id", STANDING_IN)
@pytest.mark.parametrize("how", [gym.make, gym.make_vec])
def test_a_required_bundle_is_never_stood_in_for(empty_home, id, how):
    task = TASKS[id]
    with pytest.raises(
        ValueError, match=rf"{id}: no bundle '{task.bundle}'.*`ral pretrain --recipe {task.bundle} "
    ):
        how(id, bundle_required=True)


def test_what_ships_needs_no_permission(empty_home):
    assert gym.make("RALFaces32-v0", bundle_required=True).unwrapped.bundle.path.name == "faces32"


def shape_of_celeba64(**changes: Any) -> dict[str, Any]:
    """Arguments of ``bundle.save``: random nets in the shape of RALCelebA64-v0."""
    return tiny_parts(
        vqvae=VQVAE(VQVAEConfig(64, 8, 4, layers=3, num_codes=128, code_dim=6)),
        discriminator=PatchGAN(PatchGANConfig(hidden=4, layers=4)),
        priors=[PixelCNN(PixelCNNConfig((8, 8), 128, hidden=8, residual=8, layers=1))],
        codes=np.random.default_rng(0).integers(0, 128, (40, 64)),
        oracles=(),
        dataset="faces of celebrities",
        **changes,
    )


@pytest.mark.filterwarnings("error::ral_env.StandInWarning")
def test_a_bundle_of_that_name_in_the_users_folder_ends_the_standing_in(empty_home):
    saved = bundle.save(empty_home / "celeba64", **shape_of_celeba64())
    for settings in ({}, {"bundle_required": True}, {"bundle": str(saved)}, {"bundle": "celeba64"}):
        used = gym.make("RALCelebA64-v0", **settings).unwrapped.bundle
        assert used.path == saved and used.dataset == "faces of celebrities"


@pytest.mark.filterwarnings("error::ral_env.StandInWarning")
def test_a_bundle_that_is_asked_for_is_used_without_a_word(empty_home):
    saved = bundle.save(empty_home / "elsewhere", **shape_of_celeba64())
    for asked in (str(saved), saved, "elsewhere", bundle.load(saved)):
        assert gym.make("RALCelebA64-v0", bundle=asked).unwrapped.bundle.path == saved


def test_a_bundle_of_other_grids_is_refused_with_both_shapes(tiny_two, empty_home):
    message = (
        r"RALCelebA64-v0 has images of 64 pixels and grids \(\(8, 8\),\) of 128 codes, but"
        r".*bundle.* has 32 pixels and grids \(\(8, 8\), \(16, 16\)\) of 16 codes.*RALBundle-v0"
    )
    for how in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=message):
            how("RALCelebA64-v0", bundle=str(tiny_two))
    bundle.save(empty_home / "celeba64", **tiny_parts("image", 2))  # of the right name
    with pytest.raises(ValueError, match=message):
        gym.make("RALCelebA64-v0")


def test_near_matches_of_unknown_names_are_named():
    with pytest.raises(gym.error.NameNotFound, match="Did you mean: `RALFaces32`"):
        gym.make("RALFace32-v0")
    with pytest.raises(ValueError, match="no bundle 'face32'.*Did you mean 'faces32'"):
        gym.make("RALFaces32-v0", bundle="face32")
