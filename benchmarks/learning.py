"""Where an iteration of learning spends its time: the RAL loop, and PPO with our policy and buffer.

    ral bench learning                                       # both tables, one CPU thread
    ral bench learning --part loop --envs '["RALCelebA128-v0"]' --device cuda
    ral bench learning --part iterations --iterations 20     # as `ral train --preset small` does
    PYTHONPATH=OTHER python benchmarks/learning.py --part iterations   # the same of another clone

*Loop*: one iteration of REINFORCE, for full and for partial generation (the paper's Table 11 has
102 s and 61 s, a ratio of 0.60). *Iterations*: how many of the preset ``small`` go into a second
of the processor, whatever else runs on the machine. *PPO*: the same policy and the same figures in
Stable-Baselines3, with either cache and the buffer of whole episodes, and without both: processor
seconds, the fastest of three turns.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch

from agents import reinforce
from benchmarks.demo import load_bundle
from ral_env import StandInWarning
from ral_env.envs.options import torch_device
from ral_env.nets import backends, native
from ral_env.ranges import COUNT, check_values
from ral_env.tables import markdown_table

# Parts of an iteration. "environment" is an episode's reset, decoding and scores; "scoring" is that
# of fakes and held-out reals, for the normaliser and the AUC.
PARTS = ("sampling", "environment", "discriminator", "scoring", "learning")


def loop(env: str, start: str, batch: int, iterations: int, device: str) -> dict[str, float]:
    """Mean seconds of an iteration: ``whole``, and by part.

    The discriminator is updated once on each batch that the policy has just written, so that an
    iteration samples once; there is no MLE term, as in the paper. Two iterations warm up.
    """
    config = dataclasses.replace(
        reinforce.PRESETS["small"],
        env=env,
        start=start,
        canvases=batch,
        device=device,
        discriminator_warmup=0,
        iterations=iterations + 2,
        discriminator_updates=1,
        fake_pool=1,
        gate_auc=0.0,
        mle_coef=0.0,
        discriminator_input=load_bundle(env).discriminator_input,
    )
    ends: list[float] = []

    def watch(_: int, __: Any) -> dict[str, float]:
        if device == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
        return {}

    rows = reinforce.train(config, progress=False, watch=watch, watch_every=1).history[2:]
    found = {part: sum(row[f"seconds_{part}"] for row in rows) / iterations for part in PARTS}
    return {"whole": (ends[-1] - ends[1]) / iterations, **found}


def iterations_a_second(env: str, iterations: int) -> dict[str, float]:
    """Iterations of the preset ``small`` to a processor second, and seconds of one by part.

    As ``ral train --env ENV --preset small`` makes them, but that every iteration learns (no gate)
    and the discriminator's warm-up is 3 updates. Two iterations warm up.
    """
    config = dataclasses.replace(
        reinforce.fit_preset("small", load_bundle(env)),
        env=env,
        discriminator_warmup=3,
        gate_auc=0.0,
        iterations=iterations + 2,
    )
    ends: list[float] = []

    def watch(_: int, __: Any) -> dict[str, float]:
        ends.append(time.process_time())
        return {}

    result = reinforce.train(
        config, progress=False, watch=watch, watch_every=1, clock=time.process_time
    )
    rows = result.history[2:]
    found = {part: sum(row[f"seconds_{part}"] for row in rows) / iterations for part in PARTS}
    whole = (ends[-1] - ends[1]) / iterations
    return {"a second": 1 / whole, "whole": whole, **found}


def iteration_rows(envs: Sequence[str], iterations: int) -> list[dict[str, str]]:
    """Rows of :func:`iterations_a_second`, one an id."""
    table = []
    for env in envs:
        found = iterations_a_second(env, iterations)
        whole = found["whole"]
        row = {"id": env, "iterations a second": f"{found['a second']:.3g}"}
        row["ms an iteration"] = f"{whole * 1e3:.0f}"
        row |= {part: f"{found[part] / whole:.0%}" for part in PARTS}
        row["the rest"] = f"{1 - sum(found[part] for part in PARTS) / whole:.1%}"
        table.append(row)
    return table


def loops(envs: Sequence[str], batch: int, iterations: int, device: str) -> list[dict[str, str]]:
    """Rows of full and partial generation for each id."""
    table = []
    for env in envs:
        full = loop(env, "full", batch, iterations, device)
        partial = loop(env, "partial", batch, 3 * iterations, device)  # its rows are drawn
        for start, found in ("full", full), ("partial", partial):
            whole = found["whole"]
            row = {"id": env, "start": start, "ms an iteration": f"{whole * 1e3:.0f}"}
            row |= {part: f"{found[part] / whole:.0%}" for part in PARTS}
            row["the rest"] = f"{1 - sum(found[part] for part in PARTS) / whole:.1%}"
            row["ratio to full"] = f"{whole / full['whole']:.2f}"
            table.append(row)
            print(row, flush=True)
    return table


# How PPO's rollouts are evaluated; the last has neither a cache nor the buffer of whole episodes.
WAYS = {"compiled cache": "native", "torch's cache": "eager", "no cache, SB3's own buffer": None}


def ppo(env: str, canvases: int, backend: backends.Backend | None) -> tuple[float, float]:
    """Processor seconds of collecting one rollout, and of one epoch of learning from it.

    Args:
        env: Id of the environment.
        canvases: Number of canvases of the rollout.
        backend: What evaluates the rollout's steps; None has no cache, and SB3's own buffer.
    """
    from stable_baselines3 import PPO
    from stable_baselines3.common.buffers import RolloutBuffer
    from stable_baselines3.common.logger import configure

    from agents.sb3 import PixelCNNPolicy, defaults, make_vec_env

    envs = make_vec_env(env, canvases, seed=0)
    settings = defaults(PPO, envs, n_epochs=1)
    if backend is None:
        settings["rollout_buffer_class"] = RolloutBuffer
    model = PPO(PixelCNNPolicy, envs, seed=0, **settings)
    model.set_logger(configure(None, []))
    model.policy.use_cache = backend is not None  # type: ignore[union-attr]
    backends.choose(model.policy, backend or "auto")
    _, callback = model._setup_learn(1)
    start = time.process_time()
    model.collect_rollouts(envs, callback, model.rollout_buffer, model.n_steps)
    collected = time.process_time()
    model.train()
    return collected - start, time.process_time() - collected


def ppo_rows(env: str, canvases: int, turns: int = 3) -> list[dict[str, str]]:
    """Rows of PPO in each of :data:`WAYS`: the fastest of some turns, which they take by turns."""
    compiled = bool(native.instruction_sets())
    ways = {name: way for name, way in WAYS.items() if compiled or way != "native"}
    times = [[ppo(env, canvases, way) for way in ways.values()] for _ in range(turns)]
    fastest = [tuple(map(min, zip(*of_one, strict=True))) for of_one in zip(*times, strict=True)]
    return [
        {
            "steps and buffer": name,
            "collect s": f"{collect:.3f}",
            "learn s": f"{learn:.3f}",
            "collecting, times slower": f"{collect / fastest[0][0]:.1f}",
            "both, times slower": f"{(collect + learn) / sum(fastest[0]):.1f}",
        }
        for name, (collect, learn) in zip(ways, fastest, strict=True)
    ]


def command(
    part: Literal["loop", "iterations", "ppo", "both"] = "both",
    envs: Sequence[str] = ("RALDigits-v0", "RALOracle16-v0", "RALCelebA128-v0"),
    batch: int = 16,
    iterations: int = 10,
    ppo_env: str = "RALOracle16-v0",
    canvases: int = 8,
    device: str = "cpu",
    threads: int = 1,
) -> None:
    """Time an iteration of learning, part by part.

    Args:
        part: Which table to print; "both" is those of the loop and of PPO.
        envs: Ids of the environments in the loop's table.
        batch: Number of canvases in an iteration of the loop.
        iterations: Number of iterations of the loop that are averaged.
        ppo_env: Id of the environment that PPO learns on.
        canvases: Number of canvases in PPO's rollout.
        device: Where the loop's networks run, cpu or cuda.
        threads: Number of torch's threads on the CPU.
    """
    check_values(locals(), batch=COUNT, iterations=COUNT, canvases=COUNT, threads=COUNT)
    torch_device(device)
    torch.set_num_threads(threads)
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {threads} thread(s)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StandInWarning)
        if part == "iterations":
            print(f"Preset small, processor seconds, {threads} thread(s)\n")
            rows = iteration_rows(envs, iterations)
            print(markdown_table(rows, list(rows[0])))
            return
        if part != "ppo":
            print(f"The RAL loop, batch {batch}, {where}\n")
            rows = loops(envs, batch, iterations, device)
            print("\n" + markdown_table(rows, list(rows[0])) + "\n")
        if part != "loop":
            print(f"PPO on {ppo_env}, {canvases} canvases, one rollout and one epoch, CPU\n")
            rows = ppo_rows(ppo_env, canvases)
            print(markdown_table(rows, list(rows[0])))


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments of ``ral bench learning`` and run it."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench learning", as_positional=False)


if __name__ == "__main__":
    main()
