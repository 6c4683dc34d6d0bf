"""Presets: the bundle's sizes choose one, and each learns on every id, whatever the input."""

import dataclasses
import json
import re
import signal
import warnings

import numpy as np
import pytest
import torch

from agents.reinforce import PRESETS, Config, Result, default_preset, fit_preset, train
from agents.reinforce.__main__ import main
from agents.reinforce.presets import PAPER_PARAMETERS
from agents.reinforce.state import TrainState
from pretrain.recipes import RECIPES
from ral_env import StandInWarning
from ral_env import bundle as bundles
from ral_env.nets import PatchGANConfig, PixelCNN
from ral_env.tasks import TASKS

LARGE = 256  # pixels; from here on a rollout takes seconds
IDS = [
    pytest.param(task.id, marks=[pytest.mark.expensive] if task.image_size >= LARGE else [])
    for task in TASKS.values()
]
PAPERS = ("celeba", "bedroom")  # the names of the paper's recipes begin so


def priors_of(recipe: str) -> tuple[PixelCNN, ...]:
    """The priors of a recipe, without weights."""
    with torch.device("meta"):
        return tuple(PixelCNN(config) for config in RECIPES[recipe].priors)


def flat(nets):
    """All parameters of some nets in one row."""
    return torch.cat([p.detach().flatten() for net in nets for p in net.parameters()])


def short_run(env: str, preset: str, discriminator_input: str) -> tuple[bundles.Bundle, Result]:
    """Two iterations of a few canvases, after one update of warm-up, on a few of the real ones:
    with images, all of them are decoded first."""
    bundle = bundles.load(bundles.choose(TASKS[env])[0], verify=False)
    few = {name: (start, min(end, start + 64)) for name, (start, end) in bundle.splits.items()}
    bundle = dataclasses.replace(bundle, splits=few)
    config = dataclasses.replace(
        fit_preset(preset, bundle, discriminator_input),
        env=env,
        iterations=2,
        canvases=2,
        discriminator_warmup=1,
        discriminator_updates=1,
        fake_pool=1,
        gate_auc=0.0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StandInWarning)
        return bundle, train(config, progress=False, bundle=bundle)


@pytest.mark.parametrize("env", IDS)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("discriminator_input", ["image", "codes"])
def test_every_preset_changes_the_policies_of_every_id(env, preset, discriminator_input):
    bundle, result = short_run(env, preset, discriminator_input)
    assert len(result.history) == 2
    assert all(np.isfinite(list(row.values())).all() for row in result.history)
    assert len(result.policies) == len(bundle.priors)
    for policy, prior in zip(result.policies, bundle.priors, strict=True):
        found, before = flat([policy]), flat([prior])
        assert found.isfinite().all() and not torch.equal(found, before)


@pytest.mark.parametrize("env", TASKS)
def test_a_shipped_bundles_preset_is_small_at_any_number_of_levels(env):
    name, reason = default_preset(bundles.load(bundles.choose(TASKS[env])[0], verify=False))
    assert name == "small" and re.search(r"has 0\.\d\d M parameters, fewer than 3 M", reason)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith(PAPERS)])
def test_the_papers_sizes_are_for_the_papers_settings(name, tiny):
    bundle = dataclasses.replace(bundles.load(tiny), priors=priors_of(name))
    chosen, reason = default_preset(bundle)
    assert chosen == "paper" and "at least 3 M" in reason


def test_the_threshold_lies_between_the_recipes_for_a_cpu_and_the_papers():
    largest = {
        name: max(sum(p.numel() for p in prior.parameters()) for prior in priors_of(name))
        for name in RECIPES
    }
    papers = {name for name in RECIPES if name.startswith(PAPERS)}
    assert max(largest[name] for name in RECIPES if name not in papers) < PAPER_PARAMETERS
    assert min(largest[name] for name in papers) >= PAPER_PARAMETERS


def test_the_preset_paper_is_the_papers_with_a_score_map_of_4x4(tiny):
    for image_size, layers in ((32, 3), (64, 4), (128, 5), (256, 6), (512, 7)):
        bundle = dataclasses.replace(bundles.load(tiny), image_size=image_size)
        expected = dataclasses.replace(Config(), discriminator_net=PatchGANConfig(layers=layers))
        assert fit_preset("paper", bundle) == expected
    assert PRESETS["paper"] == Config()


def test_small_goes_on_from_a_discriminator_of_the_same_input_and_else_starts_one(
    tiny, tiny_codes, tiny_two
):
    goes_on = fit_preset("small", bundles.load(tiny_codes))
    assert goes_on == PRESETS["small"]
    for path, channels in ((tiny, 6), (tiny_two, 12)):
        new = fit_preset("small", bundles.load(path))
        assert new.discriminator_input == "codes" and new.discriminator_net is not None
        assert new.discriminator_net.in_channels == channels
        assert new.discriminator_warmup > 2 * goes_on.discriminator_warmup
    image = fit_preset("small", bundles.load(tiny), "image")
    assert image.discriminator_input == "image" and image.discriminator_net is None


# --- the command ---


def few(bundle, out, *more):
    """Words of ``ral train`` for a run of moments."""
    return [
        "--env", "RALBundle-v0", "--bundle", str(bundle), "--out", str(out), "--iterations", "2",
        "--canvases", "4", "--discriminator_warmup", "1", "--gate_auc", "0", *more,
    ]  # fmt: skip


def config_of(out):
    return json.loads((out / "config.json").read_text())


def test_the_command_says_in_one_line_which_preset_and_why(tiny, tmp_path, capsys):
    assert main(few(tiny, tmp_path / "run")) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "preset small: the largest prior has 0.01 M parameters, fewer than 3 M; a new "
        "discriminator of 'codes', with 300 updates of warm-up, as the bundle's is of 'image'"
    )
    assert config_of(tmp_path / "run")["learning_rate"] == PRESETS["small"].learning_rate


def test_a_preset_that_is_named_is_taken(tiny, tmp_path, capsys):
    assert main(few(tiny, tmp_path / "run", "--preset", "paper")) == 0
    assert capsys.readouterr().out.splitlines()[0] == "preset paper: as asked"
    assert config_of(tmp_path / "run")["learning_rate"] == Config.learning_rate


@pytest.mark.parametrize("preset", PRESETS)
def test_a_run_that_goes_on_has_its_own_settings_whatever_the_default_is(
    preset, tiny, tmp_path, capsys
):
    main(few(tiny, tmp_path, "--preset", preset, "--ent_coef", "0.01"))
    stored = config_of(tmp_path)
    capsys.readouterr()
    assert main(["--resume", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"settings of {tmp_path}/config.json"
    assert config_of(tmp_path) == stored
    assert main(few(tiny, tmp_path, "--preset", preset, "--ent_coef", "0.01", "--resume")) == 0
    with pytest.raises(ValueError, match="ent_coef: 0.01 then, 0.0 now"):
        main(["--resume", "--out", str(tmp_path), "--ent_coef", "0"])


@pytest.mark.usefixtures("heeded_signals")
def test_a_run_with_a_new_discriminator_goes_on_exactly(tiny_codes, tmp_path):
    """Its episodes have the rows that the new one needs, from the first rollout on."""
    net = PatchGANConfig(hidden=4, layers=3)
    config = dataclasses.replace(
        Config(), env="RALBundle-v0", bundle=str(tiny_codes), iterations=6, canvases=4,
        discriminator_warmup=2, discriminator_net=net, checkpoint_every=1,
    )  # fmt: skip
    assert TrainState(config).envs.min_rows == 2, "a score is of 8 pixels, a row of codes of 4"
    whole = train(config, tmp_path / "whole", progress=False)

    def interrupt(iteration, policies):
        if iteration == 3:
            signal.raise_signal(signal.SIGINT)
        return {}

    cut = tmp_path / "cut"
    train(config, cut, progress=False, watch=interrupt, watch_every=1)
    resumed = train(config, cut, progress=False, resume=True)
    assert torch.equal(flat(resumed.policies), flat(whole.policies))
