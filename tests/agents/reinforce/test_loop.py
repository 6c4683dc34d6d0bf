"""The RAL loop: returns by hand, one definition of an episode, it learns, it saves."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close, tiny_parts

from agents.evaluation.guard import Guard
from agents.reinforce import PRESETS, Config, train
from agents.reinforce.loop import compute_advantages, play, sample_rollout, score, update_policy
from agents.reinforce.state import Rollout, TrainState
from agents.training.discriminator import DiscriminatorTraining
from agents.training.files import read_tensors, write_tensors
from agents.training.timings import Timings
from ral_env import bundle as bundles
from ral_env.nets import PatchGANConfig, PixelCNN, backends, joint


def untimed(row):
    return {key: value for key, value in row.items() if not key.startswith("seconds")}


def flat(nets):
    """All parameters of some nets in one row."""
    return torch.cat([p.flatten() for net in nets for p in net.parameters()])


LEVELS = ["one level", "two levels"]


@pytest.fixture(params=LEVELS)
def small(request, tiny_codes, tiny_two_codes):
    """The small preset on a tiny bundle, for a few iterations."""
    path = {"one level": tiny_codes, "two levels": tiny_two_codes}[request.param]
    return dataclasses.replace(
        PRESETS["small"],
        env="RALBundle-v0",
        bundle=str(path),
        iterations=3,
        canvases=8,
        discriminator_warmup=2,
        discriminator_updates=2,
        gate_auc=0.0,
    )


@pytest.mark.parametrize("reward", ["single", "intermediate"])
@pytest.mark.parametrize("start", ["full", "partial"])
@pytest.mark.parametrize("fake_pool", [0, 2])
def test_whole_canvas_and_step_by_step_learn_the_same(small, reward, start, fake_pool):
    config = dataclasses.replace(small, reward=reward, start=start, fake_pool=fake_pool)
    whole = train(config, progress=False)
    steps = train(dataclasses.replace(config, step_by_step=True), progress=False)
    for a, b in zip(whole.history, steps.history, strict=True):
        assert untimed(a) == untimed(b)
    assert torch.equal(flat(whole.policies), flat(steps.policies))


def written(config: Config, bundle=None) -> tuple[TrainState, Rollout]:
    """A run's state, and the first rollout."""
    state = TrainState(config, bundle)
    return state, sample_rollout(state, Timings())


@pytest.mark.parametrize("start", ["continue", "scratch"])
def test_play_pays_the_same_either_way(small, start):
    paid = []
    for step_by_step in (False, True):
        config = dataclasses.replace(small, start=start, step_by_step=step_by_step)
        state, rollout = written(config)
        real, fake = score(state, rollout, Timings())
        state.adversary.normaliser.update(real, fake)
        state.adversary.score_in(state.envs)
        paid.append(play(state, rollout, fake, Timings()))
    for whole, steps in zip(*paid, strict=True):
        assert torch.equal(whole, steps)


def test_the_same_seed_learns_the_same_and_another_does_not(small):
    a, b = train(small, progress=False), train(small, progress=False)
    c = train(dataclasses.replace(small, seed=1), progress=False)
    assert torch.equal(flat(a.policies), flat(b.policies))
    for level, policy in enumerate(a.policies):
        assert not torch.equal(flat([policy]), flat([c.policies[level]]))


def test_a_constant_reward_teaches_nothing_with_a_baseline(small):
    config = dataclasses.replace(small, reward_source="constant", mle_coef=0.0, ema=0.0)
    result = train(config, progress=False)
    assert torch.equal(flat(result.policies), flat(bundles.load(config.bundle).priors))


def test_a_blind_discriminator_moves_no_policy(small):
    result = train(dataclasses.replace(small, gate_auc=1.0), progress=False)
    assert all(row["gated"] == 1 for row in result.history)
    assert torch.equal(flat(result.policies), flat(bundles.load(small.bundle).priors))


def test_the_policy_gradient_step_equals_one_by_hand(small):
    """One update without anchor: the parameters' gradient is that of -A * log G, by autograd on
    a formula written here from the rollout the loop has made."""
    config = dataclasses.replace(small, mle_coef=0.0, standardise=False, gamma=0.9)
    state, rollout = written(config)
    _, fake = score(state, rollout, Timings())
    rewards, step_rewards = play(state, rollout, fake, Timings())
    update_policy(state, rollout, compute_advantages(state, step_rewards), Timings())
    priors = bundles.load(config.bundle).priors
    codes = torch.from_numpy(rollout.canvas.astype(np.int64))
    reward = rewards.float()
    time_left = torch.arange(codes.shape[1] - 1, -1, -1)
    others = (reward.sum() - reward) / (len(reward) - 1)
    weight = (reward - others)[:, None] * 0.9**time_left
    top = codes[:, :64].view(-1, 8, 8)
    log_prob = priors[0].log_prob(top).flatten(1)
    if len(priors) == 2:
        bottom = priors[1].log_prob(codes[:, 64:].view(-1, 16, 16), top).flatten(1)
        log_prob = torch.cat([log_prob, bottom], 1)
    loss = -(weight * log_prob).sum() / codes.numel()
    expected = torch.autograd.grad(loss, [p for prior in priors for p in prior.parameters()])
    for p, b in zip(state.learning.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, b, atol=1e-6, rtol=1e-3)


def test_a_guard_returns_the_best_policy_that_it_saw_and_changes_no_other(small, monkeypatch):
    """Looks 1 to 4 of the averages find distances of 3, 1, 2 and 2; the prior's is 5."""
    found = iter([5.0, 3.0, 1.0, 2.0, 2.0])
    seen = []

    def measure(guard, policies):
        seen.append(flat(policies).clone())
        return {"tuning_fd": next(found), "tuning_nll": 1.0}

    monkeypatch.setattr(Guard, "_measure", measure)
    config = dataclasses.replace(small, iterations=8, guard_every=1, guard_patience=2)
    guarded = train(config, progress=False)
    assert len(guarded.history) == 4, "two looks without a better one end the run"
    assert [row["tuning_best"] for row in guarded.history] == [1, 1, 0, 0]
    assert torch.equal(flat(guarded.policies), seen[2])
    plain = train(dataclasses.replace(config, guard_every=0), progress=False)
    columns = ("policy_loss", "entropy", "reward")
    for row, other in zip(guarded.history, plain.history, strict=False):
        assert [row[c] for c in columns] == [other[c] for c in columns]


def test_the_paper_preset_runs_with_fresh_fakes_on_images(tiny_codes):
    size = bundles.load(tiny_codes).vqvae.config.image_size
    config = dataclasses.replace(
        Config(),
        env="RALBundle-v0",
        bundle=str(tiny_codes),
        iterations=2,
        discriminator_warmup=2,
        discriminator_net=PatchGANConfig(hidden=4, layers=(size // 4).bit_length() - 1),
    )
    assert config.learning_rate == 4e-6 and config.canvases == 16 and config.gamma == 0.99
    assert config.discriminator == DiscriminatorTraining("wgan-gp", 1e-4, (0.5, 0.999), 10.0)
    result = train(config, progress=False)
    assert {"wasserstein", "gradient_penalty", "reward", "auc"} <= set(result.history[-1])
    assert -1 <= result.history[-1]["reward"] <= 1


def test_the_policy_comes_to_please_the_discriminator(small):
    """With a frozen one that likes one code, the share of that code must grow, on every level."""

    class LikesCodeZero(torch.nn.Module):
        stride = 1

        def __init__(self, codebooks):
            super().__init__()
            self.register_buffer("wanted", codebooks[:, 0].flatten())
            self.wanted: torch.Tensor
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):  # (B, D, h, w) -> (B, 1, h, w)
            match = (x - self.wanted[:, None, None]).abs().sum(1, keepdim=True) < 1e-6
            return match.float() + 0 * self.unused * x.mean(1, keepdim=True)

    bundle = bundles.load(small.bundle)
    liking = LikesCodeZero(bundle.vqvae.codebooks.clone())
    bundle = dataclasses.replace(bundle, discriminator=liking)
    config = dataclasses.replace(
        small,
        iterations=40,
        canvases=32,
        mle_coef=0.0,
        learning_rate=1e-2,
        ema=0.0,
        discriminator_warmup=0,
    )
    result = train(config, bundle=bundle, progress=False)
    generator = torch.Generator().manual_seed(0)
    before, after = (
        [(grid == 0).float().mean() for grid in joint.draw(policies, 200, generator)]
        for policies in (bundle.priors, result.policies)
    )
    for level in range(len(bundle.priors)):
        assert after[level] > 0.9 > before[level] + 0.3


@pytest.mark.usefixtures("heeded_signals")
def test_ctrl_c_leaves_a_usable_bundle(small, tmp_path):
    def interrupt(iteration, policies):
        if iteration == 2:
            signal.raise_signal(signal.SIGINT)
        return {}

    result = train(small, tmp_path / "run", progress=False, watch=interrupt, watch_every=1)
    assert result.interrupted and len(result.history) == 2
    saved = bundles.load(tmp_path / "run" / "bundle")
    assert torch.equal(flat(saved.priors), flat(result.policies))
    assert (tmp_path / "run" / "progress.csv").read_text().count("\n") == 3
    assert list((tmp_path / "run").glob("samples-*.png"))
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    env = gym.make("RALBundle-v0", bundle=str(tmp_path / "run" / "bundle"))
    env.reset(seed=0)


def test_settings_that_cannot_work_are_refused(small):
    with pytest.raises(ValueError, match="start alike"):
        train(dataclasses.replace(small, baseline="group"), progress=False)
    with pytest.raises(ValueError, match=r"epochs=0, expected a number in \[1, inf\)"):
        train(dataclasses.replace(small, epochs=0), progress=False)
    with pytest.raises(ValueError, match="choose a multiple of 3"):
        train(dataclasses.replace(small, group=3), progress=False)
    if len(bundles.load(small.bundle).priors) == 1:
        with pytest.raises(ValueError, match="one level"):
            train(dataclasses.replace(small, levels="bottom"), progress=False)
    with pytest.raises(ValueError, match="canvases of at least 2"):
        train(dataclasses.replace(small, canvases=1), progress=False)
    with pytest.raises(ValueError, match="discriminator_net"):
        other = {"codes": "image", "image": "codes"}[bundles.load(small.bundle).discriminator_input]
        train(
            dataclasses.replace(small, discriminator_input=other, discriminator_net=None),
            progress=False,
        )


# --- the relatives of REINFORCE ---


@pytest.mark.parametrize(
    "changes",
    [
        {"baseline": "running-mean"},
        {"baseline": "group", "group": 4, "start": "continue"},
        {"baseline": "group", "group": 4, "start": "partial", "standardise": True},
        {"kl_loss_coef": 0.1, "ent_coef": 0.01},
        {"epochs": 3, "clip": 0.1},
        {"discriminator": DiscriminatorTraining(loss="hinge", r1=0.1)},
    ],
    ids=["running mean", "group", "group, partial", "kl and entropy", "ppo", "hinge"],
)
def test_each_relative_learns_and_repeats(small, changes):
    config = dataclasses.replace(small, **changes)
    a, b = train(config, progress=False), train(config, progress=False)
    assert torch.equal(flat(a.policies), flat(b.policies))
    assert not torch.equal(flat(a.policies), flat(bundles.load(config.bundle).priors))
    assert list(map(untimed, a.history)) == list(map(untimed, b.history))


def test_a_group_starts_from_the_same_real_rows(small):
    config = dataclasses.replace(small, start="continue", group=4)
    _, rollout = written(config)
    given = rollout.start[:, ~rollout.sampled[0].numpy()]
    assert given.shape[1] and len(np.unique(given, axis=0)) == 2
    assert (given[:4] == given[0]).all() and (given[4:] == given[4]).all()
    for grid in rollout.fakes.grids:
        assert len(torch.unique(grid.flatten(1), dim=0)) == 8, "each writes its own"


def test_many_epochs_move_the_ratio_and_are_clipped(small):
    """With one epoch it is REINFORCE; with several, what has moved too far earns no more."""
    config = dataclasses.replace(small, mle_coef=0.0, iterations=1, learning_rate=0.1, ema=0.0)
    start = flat(bundles.load(config.bundle).priors)
    far = [
        (flat(train(dataclasses.replace(config, epochs=8, clip=clip), progress=False).policies)
         - start).norm().item()
        for clip in (1e-4, 10.0)
    ]  # fmt: skip
    assert far[0] < 0.9 * far[1]


@pytest.mark.parametrize("small", LEVELS[1:], indirect=True)
def test_the_levels_that_do_not_learn_stay(small):
    priors = bundles.load(small.bundle).priors
    for levels, stays in {"top": 1, "bottom": 0}.items():
        config = dataclasses.replace(small, levels=levels)
        policies = train(config, progress=False).policies
        assert torch.equal(flat([policies[stays]]), flat([priors[stays]]))
        assert not torch.equal(flat([policies[1 - stays]]), flat([priors[1 - stays]]))


# --- runs that are cut, runs of several processes ---


def command(config, out, *more):
    """``ral train`` with these settings, as a command line."""
    words = ["--preset", "small", "--out", str(out), *more]
    for f in dataclasses.fields(Config):
        value = getattr(config, f.name)
        if value != getattr(PRESETS["small"], f.name):
            words += [f"--{f.name}", str(value)]
    return words


def table(file):
    return list(csv.DictReader(file.read_text().splitlines()))


def run(*words, module="agents.train"):
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def has_rows(folder):
    progress = folder / "progress.csv"
    return progress.exists() and progress.read_text().count("\n") > 6


def is_warming_up(folder):
    return (folder / "checkpoint.pt").exists()


@pytest.mark.faults
@pytest.mark.parametrize("small", LEVELS[1:], indirect=True)
@pytest.mark.parametrize("moment", [is_warming_up, has_rows])
def test_a_run_killed_without_warning_goes_on_exactly(small, moment, tmp_path):
    """kill -9, then --resume: the same weights, figures and checkpoint."""
    config = dataclasses.replace(
        small, iterations=20, start="partial", group=2, baseline="running-mean",
        reward_source="random", normaliser="running", checkpoint_every=4, discriminator_warmup=30,
    )  # fmt: skip
    whole = train(config, tmp_path / "whole", progress=False)
    cut = run(*command(config, tmp_path / "cut"))
    deadline = time.monotonic() + 100
    while not moment(tmp_path / "cut"):
        assert cut.poll() is None, cut.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    cut.kill()
    cut.communicate()
    assert not (tmp_path / "cut" / "bundle").exists()
    resumed = run(*command(config, tmp_path / "cut"), "--resume")
    _, error = resumed.communicate(timeout=100)
    assert resumed.returncode == 0, error
    saved = bundles.load(tmp_path / "cut" / "bundle")
    assert torch.equal(flat(saved.priors), flat(whole.policies))
    assert torch.equal(flat([saved.discriminator]), flat([whole.discriminator]))
    rows = [table(tmp_path / name / "progress.csv") for name in ("cut", "whole")]
    assert list(map(untimed, rows[0])) == list(map(untimed, rows[1])) and len(rows[0]) == 20
    states = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["state"]["train_state"]
        for name in ("cut", "whole")
    ]
    assert repr(states[0]) == repr(states[1])


def test_a_run_is_never_overwritten_nor_resumed_as_another(small, tmp_path):
    train(small, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="holds a run: go on with it"):
        train(small, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="asked for something else .gamma: 1.0 then, 0.5 now"):
        train(dataclasses.replace(small, gamma=0.5), tmp_path / "run", progress=False, resume=True)
    with pytest.raises(ValueError, match="no run to resume"):
        train(small, tmp_path / "none", progress=False, resume=True)
    again = train(small, tmp_path / "run", progress=False, resume=True)
    assert len(again.history) == small.iterations, "it was finished already"


def test_a_resume_that_is_refused_by_the_checkpoint_changes_nothing(small, tmp_path):
    train(small, tmp_path / "run", progress=False)
    file = tmp_path / "run" / "checkpoint.pt"
    stored = read_tensors(file)
    write_tensors(file, stored | {"settings": stored["settings"] | {"gamma": 0.5}})
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").glob("*.*")}
    other = dataclasses.replace(small, checkpoint_every=7)  # which is free to change
    with pytest.raises(ValueError, match="checkpoint.pt is of other settings .gamma: 0.5 there"):
        train(other, tmp_path / "run", progress=False, resume=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").glob("*.*")} == before


def test_a_run_goes_on_with_the_backend_that_it_began_with(small):
    """Which one a checkpoint says; those before it said so were of torch's operations."""
    began = TrainState(small)
    common, of_this_process = began.state()
    assert common["backend"] == backends.chosen(began.policies)
    for stored, expected in (({"backend": "eager"}, "eager"), ({}, "eager")):
        state = TrainState(small)
        others = {key: value for key, value in common.items() if key != "backend"}
        state.load_state(others | stored, of_this_process)
        assert all(net.backend == expected for net in [*state.policies, *state.averages])
    state = TrainState(small)
    state.policies.double()
    state.averages.double()  # as where nothing is compiled
    with pytest.warns(UserWarning, match="goes on with torch's operations, and not to the bit"):
        state.load_state(common | {"backend": "native"}, of_this_process)


def test_two_processes_make_the_run_of_one(tmp_path):
    """Without dropout, whose masks are each process's own: the same weights, to rounding."""
    pytest.importorskip("accelerate")
    parts = tiny_parts("codes", 2)
    for kind in ("priors", "oracles"):
        parts[kind] = [
            PixelCNN(dataclasses.replace(net.config, dropout=0.0)) for net in parts[kind]
        ]
    bundles.save(tmp_path / "plain", **parts)
    config = dataclasses.replace(
        PRESETS["small"],
        env="RALBundle-v0",
        bundle=str(tmp_path / "plain"),
        start="partial",
        iterations=4,
        canvases=8,
        group=2,
        discriminator_warmup=3,
        baseline="group",
        gate_auc=0.0,
        reward_source="random",
    )
    one = train(config, tmp_path / "one", progress=False)
    words = command(config, tmp_path / "two")
    two = run(
        "--standalone", "--nproc-per-node", "2", "-m", "agents.reinforce", "--", *words,
        module="torch.distributed.run",
    )  # fmt: skip
    _, error = two.communicate(timeout=200)
    assert two.returncode == 0, error[-3000:]
    assert [file.name for file in (tmp_path / "two").glob("*.pt*")] == ["checkpoint.pt"]
    saved = bundles.load(tmp_path / "two" / "bundle")
    torch.testing.assert_close(flat(saved.priors), flat(one.policies), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        flat([saved.discriminator]), flat([one.discriminator]), atol=1e-5, rtol=1e-4
    )


def test_a_run_ends_in_a_row_of_results(small, tmp_path):
    result = train(small, tmp_path, progress=False)
    (row,) = table(tmp_path / "metrics.csv")
    assert row["algo"] == "reinforce" and row["env"] == "RALBundle-v0" and row["dataset"] == "noise"
    assert int(row["canvases"]) == 3 * 8
    bundle = bundles.load(small.bundle)
    test = bundle.layout.as_grids(bundle.split("test"))
    for prefix, nets in ("", result.policies), ("prior_", bundle.priors):
        nats = -joint.total_log_prob(nets, test).mean().item()
        assert float(row[f"{prefix}forward_nll"]) == close(nats)
        assert -1 <= float(row[f"{prefix}score"]) <= 1
        assert 0 < float(row[f"{prefix}diversity"]) <= 1
        expected = float(row[f"{prefix}nll_oracle"]) - float(row[f"{prefix}entropy"])
        assert float(row[f"{prefix}reverse_kl"]) == close(expected, nats)
