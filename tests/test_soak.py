"""Environments that run for hours: nothing grows, and all that they give is finite."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytestmark = pytest.mark.soak

SECONDS = float(os.environ.get("SOAK", "60"))
GROWTH = 32  # megabytes
PROC = Path("/proc/self")


def held() -> tuple[float, int, int]:
    """Megabytes of memory, files and threads that this process holds."""
    pages = int((PROC / "statm").read_text(encoding="ascii").split()[1])
    megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return megabytes, len(os.listdir(PROC / "fd")), threading.active_count()


def play(envs: Any, seconds: float, rng: np.random.Generator) -> tuple[int, int]:
    """Steps and episodes of as many seconds, by chance; every reward and score is looked at."""
    steps, ends, until = 0, 0, time.monotonic() + seconds
    while time.monotonic() < until:
        actions = rng.integers(envs.single_action_space.n, size=envs.num_envs)
        obs, rewards, terminated, truncated, infos = envs.step(actions)
        assert np.isfinite(rewards).all() and not truncated.any()
        assert envs.observation_space.contains(obs)
        steps += envs.num_envs
        if terminated.any():
            ends += int(terminated.sum())
            final = infos["final_info"]
            assert all(np.isfinite(scores).all() for scores in final["score_map"][terminated])
    return steps, ends


@pytest.mark.skipif(not PROC.exists(), reason="/proc says what a process holds")
@pytest.mark.parametrize("start", ["full", "partial"])
def test_an_environment_holds_after_hours_what_it_held_after_minutes(start, capsys):
    envs = gym.make_vec(
        "ral_env:RALFaces32-v0", num_envs=16, reward="intermediate", start=start,
        autoreset_mode="same_step",
    )  # fmt: skip
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    play(envs, SECONDS / 20, rng)
    before = held()
    steps, ends = play(envs, SECONDS / 2, rng)
    grown = held()[0] - before[0]
    with capsys.disabled():
        print(f"\n{start}: {steps} steps, {ends} episodes, {grown:+.1f} MB")
    assert ends > 16
    assert grown < GROWTH and held()[1:] == before[1:]


@pytest.mark.skipif(not PROC.exists(), reason="/proc says what a process holds")
def test_making_and_closing_environments_leaves_nothing(capsys):
    """Each has its own nets, and a bundle that is mapped into memory."""
    made, until = 0, time.monotonic() + max(5.0, SECONDS / 20)
    before: tuple[float, int, int] | None = None
    while time.monotonic() < until or made < 8:
        env: Any = gym.make("ral_env:RALFaces32-v0", render_mode="rgb_array")
        env.reset(seed=made)
        env.step(0)
        env.render()
        env.close()
        del env
        made += 1
        if made == 4:
            before = held()
    assert before is not None
    after = held()
    with capsys.disabled():
        print(f"\n{made} made and closed, {after[0] - before[0]:+.1f} MB")
    assert after[0] - before[0] < GROWTH and after[1:] == before[1:]
