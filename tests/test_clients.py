"""Learners that others wrote run on the environments as they are: see docs/clients.md.

Each client runs in a process of its own. What the page says to paste is what runs here.
"""

import json
import math
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import close

PAGE = Path(__file__).parents[1] / "docs" / "clients.md"
CLEANRL = os.environ.get("CLEANRL_PPO")

pytestmark = pytest.mark.expensive


def script(client: str) -> str:
    """The first Python block below the client's heading in docs/clients.md."""
    section = PAGE.read_text().split(f"\n## {client}\n")[1].split("\n## ")[0]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def run(cwd: Path, code: str, *arguments: str) -> dict[str, Any]:
    """What the code prints last, which is JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_whole(canvas: list[int]) -> None:
    assert len(canvas) == 64 and min(canvas) >= 0 and max(canvas) < 64  # 64 is EMPTY


@pytest.mark.skipif(not CLEANRL, reason="CLEANRL_PPO names no file: the path of CleanRL's ppo.py")
@pytest.mark.filterwarnings("ignore")  # TensorBoard's, while it is imported
def test_cleanrls_ppo_trains_unmodified(tmp_path):
    """129 steps of each environment: two episodes, and the step between them that resets."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    code = """
import json, runpy, sys
del sys.argv[0]
end = runpy.run_path(sys.argv[0], run_name="__main__")  # its variables when it is over
print(json.dumps({
    "steps": end["global_step"],
    "lengths": [list(map(int, env.length_queue)) for env in end["envs"].envs],
    "returns": [list(map(float, env.return_queue)) for env in end["envs"].envs],
    "observations": end["next_obs"].tolist(),
    "final": end["infos"]["final_canvas"].tolist(),
}))
"""
    settings = "--env-id ral_env:RALFaces32-v0 --num-envs 4 --num-steps 43 --total-timesteps 516"
    assert CLEANRL is not None
    end = run(tmp_path, code, str(Path(CLEANRL).resolve()), *settings.split(), "--no-cuda")
    assert end["steps"] == 516
    assert end["lengths"] == [[64, 64]] * 4
    returns = [value for env in end["returns"] for value in env]
    assert len(set(returns)) == 8 and all(-1 <= value <= 1 for value in returns)
    assert end["final"] == end["observations"]
    for canvas in end["final"]:
        assert_whole(canvas)

    (folder,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    for name in ("losses/policy_loss", "losses/value_loss", "losses/entropy"):
        logged = events.Scalars(name)
        assert [event.step for event in logged] == [172, 344, 516]
        assert all(math.isfinite(event.value) for event in logged)


@pytest.mark.skipif(not find_spec("torchrl"), reason="pip install torchrl")
@pytest.mark.parametrize("mode", ["same_step", "disabled"])
def test_torchrl_accepts_the_specs_and_rolls_whole_episodes_out(tmp_path, mode):
    code = script("TorchRL")
    assert '"same_step"' in code
    report = """
import json
done = episodes["next", "done"].squeeze(-1)
print(json.dumps({
    "length": len(episode),
    "done": episode["next", "done"].flatten().nonzero().flatten().tolist(),
    "rewards": episode["next", "reward"].flatten().tolist(),
    "final": episode["next", "final_canvas"][-1].tolist(),
    "observation": episode["next", "observation"][-1].tolist(),
    "dones": done.nonzero().tolist(),
    "canvases": episodes["next", "observation"][done].tolist(),
    "begins": episodes["observation"][:, [0, 64]].unique().tolist(),
    "returns": episodes["next", "reward"].squeeze(-1)[done].tolist(),
}))
"""
    end = run(tmp_path, code.replace('"same_step"', f'"{mode}"') + report)
    assert end["length"] == 64 and end["done"] == [63]
    assert end["rewards"][:-1] == [0] * 63 and 0 < abs(end["rewards"][-1]) <= 1
    assert end["final"] == end["observation"]
    assert_whole(end["final"])
    assert end["dones"] == [[env, step] for env in range(16) for step in (63, 127)]
    assert end["begins"] == [64]  # EMPTY: both episodes begin with nothing written
    assert all(0 < abs(value) <= 1 for value in end["returns"])
    assert len(end["canvases"]) == 32
    for canvas in end["canvases"]:
        assert_whole(canvas)


@pytest.mark.skipif(not find_spec("ray"), reason="pip install 'ray[rllib]'")
def test_rllibs_ppo_trains_for_an_iteration(tmp_path):
    report = """
import json
learner = trained["learners"]["default_policy"]
print(json.dumps({
    "sampled": int(result["num_env_steps_sampled"]),
    "episodes": int(result["num_episodes"]),
    "lengths": [int(result["episode_len_min"]), int(result["episode_len_max"])],
    "returns": [float(result["episode_return_min"]), float(result["episode_return_max"])],
    "losses": [float(learner[key]) for key in ("policy_loss", "vf_loss", "entropy")],
    "length": len(episode),
    "return": float(episode.get_return()),
    "earned": float(episode.get_infos(-1)["step_rewards"].sum()),
    "final": episode.get_infos(-1)["final_canvas"].tolist(),
    "observation": episode.get_observations(-1).tolist(),
}))
"""
    end = run(tmp_path, script("RLlib") + report)
    assert end["sampled"] == 512 and end["episodes"] == 8  # of 4 environments
    assert end["lengths"] == [64, 64]
    assert -64 <= end["returns"][0] < end["returns"][1] <= 64
    assert all(math.isfinite(value) for value in end["losses"])
    assert end["length"] == 64
    assert end["return"] == close(end["earned"], 64)
    assert end["final"] == end["observation"]
    assert_whole(end["final"])


@pytest.mark.skipif(not find_spec("ray"), reason="pip install 'ray[rllib]'")
def test_the_rllib_script_trains_and_its_checkpoint_goes_on(tmp_path):
    code = f"""
import json, os, sys
sys.path.insert(0, {str(PAGE.parent)!r})
import ray, torch
from ray.rllib.algorithms.algorithm import Algorithm
from rllib_train import configure, train
ray.init(include_dashboard=False, log_to_driver=False)
rows = train(configure("RALFaces32-v0", canvases=8), 2, "checkpoint")
loaded = Algorithm.from_checkpoint(os.path.abspath("checkpoint"))
more = loaded.train()
empty = torch.full((2, 64), 64, dtype=torch.int16)
logits = loaded.get_module().forward_inference({{"obs": empty}})
print(json.dumps({{
    "rows": rows, "iteration": more["training_iteration"],
    "logits": list(logits["action_dist_inputs"].shape),
}}))
"""
    end = run(tmp_path, code)
    assert [row["iteration"] for row in end["rows"]] == [1, 2]
    assert [row["episodes"] for row in end["rows"]] == [8, 16]
    for row in end["rows"]:
        assert -64 <= row["return"] <= 64 and 0 < row["entropy"] <= math.log(64) + 1e-4
    assert end["iteration"] == 3
    assert end["logits"] == [2, 64]


@pytest.mark.skipif(not find_spec("ray"), reason="pip install 'ray[rllib]'")
@pytest.mark.timeout(600)  # Ray's processes can take minutes to start on a busy machine
def test_the_rllib_script_trains_with_several_runners(tmp_path):
    settings = "--iterations 2 --runners 2 --canvases 8 --out checkpoint"
    done = subprocess.run(
        [sys.executable, str(PAGE.parent / "rllib_train.py"), *settings.split()],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.split()[0].isdigit()]
    assert [row[:2] for row in rows] == [["1", "8"], ["2", "16"]]
    assert (tmp_path / "checkpoint" / "rllib_checkpoint.json").exists()


@pytest.mark.skipif(not find_spec("tianshou"), reason="pip install tianshou")
def test_tianshous_ppo_trains_on_episodes_of_all_starts(tmp_path):
    code = script("Tianshou")
    assert "raise_on_nan_in_buffer=True" in code
    report = """
import json
info = collector.buffer.info
print(json.dumps({
    "lengths": episodes.lens.tolist(),
    "returns": episodes.returns.tolist(),
    "updates": int(result.update_step),
    "starts": sorted(set(info.start[collector.buffer.terminated].tolist())),
    "finite": bool(np.isfinite(info.score_map).all()),
}))
"""
    end = run(tmp_path, code + report)
    assert len(end["lengths"]) == 8 and all(8 <= length <= 64 for length in end["lengths"])
    assert all(0 < abs(value) <= 64 for value in end["returns"])
    assert end["updates"] > 0
    assert end["starts"] == [1, 2] and end["finite"]  # "continue" and "scratch"
