"""Environments work in processes that are forked from one in which PyTorch has used its threads."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from ral_env.tasks import TASKS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

PARENT = """
import json, os
import numpy as np
import torch

torch.set_num_threads(2)
torch.rand(1_000_000).exp()  # with both threads, which do not survive a fork
"""


def run(code: str) -> Any:
    """What the code prints last, which is JSON, in a process whose number of threads is free."""
    free = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PARENT + code],
        env=free,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_gymnasiums_async_vector_env_plays_every_id():
    """As a user types it; the parent keeps its threads."""
    code = """
import gymnasium as gym
import ral_env
from ral_env.tasks import TASKS

ends = {}
for id, task in TASKS.items():
    envs = gym.make_vec(id, num_envs=2, vectorization_mode="async")
    envs.reset(seed=0, options={"start": "continue", "rows": task.levels[0][0] - 1})
    terminated = np.zeros(2, bool)
    while not terminated.any():
        _, rewards, terminated, *_ = envs.step(np.zeros(2, int))
    envs.close()
    ends[id] = [terminated.tolist(), rewards.tolist()]
print(json.dumps({"threads": torch.get_num_threads(), "ends": ends}))
"""
    found = run(code)
    assert found["threads"] == 2
    assert list(found["ends"]) == list(TASKS)
    for terminated, rewards in found["ends"].values():
        assert terminated == [True, True] and all(0 < abs(reward) <= 1 for reward in rewards)


def test_stable_baselines_forks_workers_that_import_the_package_themselves():
    code = """
import gymnasium as gym
from stable_baselines3.common.vec_env import SubprocVecEnv

make = lambda: gym.make("ral_env:RALFaces32-v0")
envs = SubprocVecEnv([make, make], start_method="fork")
envs.reset()
for _ in range(64):
    _, rewards, dones, _ = envs.step(np.zeros(2, int))
envs.close()
print(json.dumps([torch.get_num_threads(), dones.tolist(), rewards.tolist()]))
"""
    threads, dones, rewards = run(code)
    assert threads == 2 and dones == [True, True]
    assert all(0 < abs(reward) <= 1 for reward in rewards)


def test_a_forked_process_has_one_thread_and_may_ask_for_more():
    code = """
import ral_env

child = os.fork()
if not child:
    found = torch.get_num_threads()
    torch.set_num_threads(2)
    os._exit(10 * found + torch.get_num_threads())
_, status = os.waitpid(child, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), torch.get_num_threads()]))
"""
    assert run(code) == [12, 2]
