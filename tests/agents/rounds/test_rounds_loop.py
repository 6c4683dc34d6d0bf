"""Rounds repeat, go on exactly, leave what other algorithms leave, and say what is wrong."""

import csv
import dataclasses
import shutil

import gymnasium as gym
import pytest
import torch

from agents import reinforce
from agents.evaluation.evaluator import Evaluator, TemperedPrior
from agents.rounds import Config, train
from agents.rounds.__main__ import main
from agents.rounds.state import TrainState
from agents.training.discriminator import DiscriminatorTraining
from agents.training.files import read_rows, read_tensors, write_tensors
from ral_env import bundle as bundles
from ral_env.nets import backends


def untimed(history):
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in history]


def flat(nets):
    """All parameters of some nets in one row."""
    return torch.cat([p.flatten() for net in nets for p in net.parameters()])


@pytest.fixture(params=["one level", "two levels"])
def short(request, tiny_codes, tiny_two_codes):
    """Two rounds of moments on a tiny bundle."""
    path = {"one level": tiny_codes, "two levels": tiny_two_codes}[request.param]
    return Config(
        env="RALBundle-v0",
        bundle=str(path),
        rounds=2,
        canvases=24,
        discriminator_canvases=8,
        discriminator_warmup=2,
        discriminator_updates=3,
        discriminator_batch=4,
        updates=4,
        batch=4,
    )


def test_every_level_learns_and_every_figure_is_logged(short):
    result = train(short, progress=False)
    for new, old in zip(result.policies, bundles.load(short.bundle).priors, strict=True):
        assert not torch.equal(flat([new]), flat([old]))
    assert [row["round"] for row in result.history] == [0, 1, 2]
    for row in result.history[1:]:
        assert 1 / 16 <= row["ess"] <= 1 and 0 <= row["auc"] <= 1 and row["kl"] > 0
        assert row["entropy"] > 0 and row["forward_nll"] > 0
        assert {"score_real", "score_fake", "score_train", "largest_weight"} <= set(row)
        assert {"policy_loss", "kl_loss", "mle_loss", "cross_entropy", "r1"} <= set(row)


@pytest.mark.faults
@pytest.mark.parametrize("stop", ["between rounds", "within a round"])
def test_a_run_that_was_cut_ends_as_one_that_was_not(short, tmp_path, stop):
    def cut(number, policies):
        if number == 2:
            raise KeyboardInterrupt
        return {}

    # With a folder, as its bundle gets a discriminator that knows the last policy.
    whole = train(dataclasses.replace(short, rounds=3), tmp_path / "whole", progress=False)
    if stop == "within a round":
        three = dataclasses.replace(short, rounds=3)
        part = train(three, tmp_path / "run", progress=False, watch=cut)
        assert part.interrupted and len(part.history) == 2
    else:
        train(dataclasses.replace(short, rounds=1), tmp_path / "run", progress=False)
    rest = train(
        dataclasses.replace(short, rounds=3), tmp_path / "run", progress=False, resume=True
    )
    assert untimed(rest.history) == untimed(whole.history)
    assert torch.equal(flat(rest.policies), flat(whole.policies))
    assert torch.equal(flat([rest.discriminator]), flat([whole.discriminator]))
    lines = (tmp_path / "run" / "progress.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["round", "0", "1", "2", "3"]


def test_a_run_goes_on_with_the_backend_that_it_began_with(short):
    began = TrainState(short)
    common, _ = began.state()
    assert common["backend"] == backends.chosen(began.policies)
    goes_on = TrainState(short)
    goes_on.load_state(common | {"backend": "eager"}, None)
    assert backends.chosen(goes_on.policies) == "eager"
    assert backends.chosen(goes_on.frozen(goes_on.policies)) == "eager"  # as the next round's are


def test_no_round_begins_when_the_seconds_are_over(short):
    ticks = iter(range(10**6))
    found = train(dataclasses.replace(short, rounds=50, seconds=0.0), progress=False)
    assert len(found.history) == 1  # the prior as it came
    config = dataclasses.replace(short, rounds=50, seconds=1.0)
    found = train(config, progress=False, clock=lambda: float(next(ticks)))
    assert len(found.history) == 1 and found.seconds > 1


def test_elites_alone_are_learned_from(short):
    """Without the other terms, canvases that weigh nothing have no part in the policy's loss."""
    config = dataclasses.replace(
        short, rounds=1, elites=0.25, signed=False, kl_coef=0.0, mle_coef=0.0, proposal_floor=1e-9
    )
    found = train(config, progress=False)
    shown = config.canvases - config.discriminator_canvases
    count = max(1, round(0.25 * shown))
    assert found.history[1]["ess"] == pytest.approx(count / shown)
    assert found.history[1]["largest_weight"] == pytest.approx(shown / count)


def test_a_run_goes_on_only_with_its_own_settings(short, tmp_path):
    train(dataclasses.replace(short, rounds=1), tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="kl_coef"):
        train(dataclasses.replace(short, kl_coef=2.0), tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="holds a run"):
        train(short, tmp_path / "run")


def test_a_run_goes_on_however_the_path_of_its_bundle_is_spelt(tiny_codes, short, tmp_path):
    """But not on another bundle of that path."""
    place = shutil.copytree(tiny_codes, tmp_path / "bundle")
    one = dataclasses.replace(short, bundle=str(place), rounds=1)
    train(one, tmp_path / "run", progress=False)
    again = dataclasses.replace(one, bundle=f"{tmp_path}/run/../bundle/")
    assert len(train(again, tmp_path / "run", progress=False, resume=True).history) == 2
    loaded = bundles.load(place)
    bundles.save(place, dataclasses.replace(loaded, dataset="other noise"), metrics={})
    with pytest.raises(ValueError, match="bundle_digest: .* then, .* now"):
        train(one, tmp_path / "run", progress=False, resume=True)


def test_the_rows_are_in_the_table_and_not_in_the_checkpoint(short, tmp_path):
    """Checkpoints of earlier versions have them, and go on."""
    train(dataclasses.replace(short, rounds=1), tmp_path / "run", progress=False)
    whole = train(short, progress=False)
    file = tmp_path / "run" / "checkpoint.pt"
    stored = read_tensors(file)
    assert "history" not in stored["state"] and stored["state"]["rows"] == 2
    shutil.copytree(tmp_path / "run", tmp_path / "earlier")
    state = stored["state"]
    early = {
        "train_state": {**state["train_state"], "round": state["iteration"]},
        "history": read_rows(tmp_path / "run" / "progress.csv"),
        "seconds": state["seconds"],
    }
    write_tensors(tmp_path / "earlier" / "checkpoint.pt", stored | {"state": early})
    for name in ("run", "earlier"):
        rest = train(short, tmp_path / name, progress=False, resume=True)
        assert untimed(rest.history) == untimed(whole.history)
        assert torch.equal(flat(rest.policies), flat(whole.policies))


@pytest.mark.parametrize("levels", ["top", "bottom"])
def test_levels_that_do_not_learn_stay(tiny_two_codes, short, levels):
    config = dataclasses.replace(short, bundle=str(tiny_two_codes), levels=levels)
    result = train(config, progress=False)
    old = bundles.load(tiny_two_codes).priors
    changed = [
        not torch.equal(flat([a]), flat([b])) for a, b in zip(result.policies, old, strict=True)
    ]
    assert changed == [levels == "top", levels == "bottom"]


@pytest.mark.parametrize("input", ["image", "codes"])
def test_a_discriminator_of_either_input_weights_the_canvases(tiny, short, input):
    """The bundle has one of images; of codes, a new one is begun."""
    config = dataclasses.replace(short, bundle=str(tiny), discriminator_input=input)
    result = train(config, progress=False)
    assert result.history[-1]["ess"] < 1


def test_a_run_leaves_the_bundle_and_the_figures_that_reinforce_leaves(short, tmp_path):
    result = train(short, tmp_path / "rounds", progress=False)
    saved = bundles.load(tmp_path / "rounds" / "bundle")
    assert torch.equal(flat(saved.priors), flat(result.policies))
    assert torch.equal(flat([saved.discriminator]), flat([result.discriminator]))
    gym.make("RALBundle-v0", bundle=str(tmp_path / "rounds" / "bundle")).reset(seed=0)
    assert list((tmp_path / "rounds").glob("samples-*.png"))

    other = dataclasses.replace(
        reinforce.PRESETS["small"], env="RALBundle-v0", bundle=short.bundle, iterations=1,
        canvases=8, discriminator_warmup=1,
    )  # fmt: skip
    reinforce.train(other, tmp_path / "reinforce", progress=False)
    ours, theirs = (
        next(csv.DictReader((tmp_path / name / "metrics.csv").read_text().splitlines()))
        for name in ("rounds", "reinforce")
    )
    assert set(ours) == set(theirs) | {"auc", "ess"}
    evaluator = Evaluator(bundles.load(short.bundle))
    figures = evaluator.evaluate_prior(TemperedPrior(saved.priors), count=8).figures
    assert float(ours["forward_nll"]) == figures["forward_nll"]


def test_a_command_goes_on_with_the_settings_of_its_run(tiny_codes, tmp_path, capsys):
    run = ["--env", "RALBundle-v0", "--out", str(tmp_path / "run")]
    settings = {
        "bundle": tiny_codes, "rounds": 1, "canvases": 8, "discriminator_canvases": 4,
        "updates": 1, "discriminator_warmup": 1, "discriminator_updates": 1, "kl_coef": 0.9,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in settings.items()]
    assert main([*run, *words]) == 0
    assert main([*run, "--resume", "--rounds", "2"]) == 0
    assert "finished after 2 rounds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"discriminator": DiscriminatorTraining("wgan-gp")}, "expected 'logistic'"),
        ({"discriminator_canvases": 24}, "discriminator_canvases=24 of canvases=24"),
        ({"clip_quantile": 0.0}, "clip_quantile=0.0"),
        ({"proposal_floor": 0.0}, "proposal_floor=0.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(short, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(short, **changes)


def test_a_prior_without_logits_is_refused(short):
    class Without(torch.nn.Module):
        """A prior with what the protocol asks for, and no more."""

        def log_prob(self, codes, condition=None, temperature=1.0): ...

        def sample(self, prefix, condition=None, temperature=1.0, generator=None): ...

    bundle = bundles.load(short.bundle)
    bundle = dataclasses.replace(bundle, priors=tuple(Without() for _ in bundle.priors))
    with pytest.raises(ValueError, match="level 0, a Without, has no logits"):
        train(short, bundle=bundle, progress=False)
