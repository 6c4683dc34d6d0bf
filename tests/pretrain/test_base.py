"""A recipe on a base keeps its codes and priors, and learns a larger decoder."""

import contextlib
import dataclasses
import json
import shutil
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from short_recipes import CutAt, short

from pretrain import costs, data, run, vqvae
from pretrain.__main__ import _without_path
from pretrain.base import begin_from
from pretrain.configs import VQVAETraining
from pretrain.overrides import override
from pretrain.pixels import to_float
from pretrain.priors import validation_nats
from pretrain.vqvae import reconstruction_error
from ral_env import bundle
from ral_env.bundle.store import save
from ral_env.cli import main
from ral_env.nets import VQVAE, VQVAEConfig, joint

# A few steps leave most codes unused.
pytestmark = pytest.mark.filterwarnings("ignore:the codebook of level")

ENLARGED = ["vqvae.image_size=64", "vqvae.enlarge=2"]


def small():
    """A recipe of two levels, 4x4 and 8x8 codes of 32 pixels, with as few nets as there may be."""
    nets: dict[str, Any] = {"oracles": (), "oracle_trainings": (), "oracle_samples": 0}
    nets |= dict.fromkeys(["features", "selfsupervised", "other_discriminator"])
    recipe = short("oracle-two-level", count=60, **nets)
    grids = ["priors.0.grid=[4,4]", "priors.1.grid=[8,8]", "priors.1.condition_grid=[4,4]"]
    recipe = override(recipe, ["vqvae.image_size=32", "vqvae_training.batch=8"])
    return override(recipe, grids)


def on(base, *settings):
    """That of images twice as large, on a base."""
    return override(small(), [*ENLARGED, f"base={base}", *settings])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    place = tmp_path_factory.mktemp("bases") / "small"
    return run.pretrain(small(), place, work=place.with_name("work"))


@pytest.fixture(scope="module")
def enlarged(base):
    return run.pretrain(on(base), base.with_name("large"), work=base.with_name("work-of-large"))


def decodes(name):
    return name.startswith(("decoder.", "enlarge."))


def test_its_codes_are_the_bases_of_the_averaged_images_and_its_priors_the_bases(base, enlarged):
    small, large = bundle.load(base), bundle.load(enlarged)
    assert (large.image_size, large.layout) == (64, small.layout)
    images = to_float(data.load("faces", 64, count=60).part("test")[:])
    assert len(images) == len(large.split("test")) > 4
    codes = large.layout.as_grids(large.split("test"))

    def nearest(level, vectors):
        """The vectors of the codes that were found, none of which another one beats."""
        distances = torch.cdist(vectors.permute(0, 2, 3, 1).flatten(1, 2), books[level])
        chosen = distances.gather(2, codes[level].flatten(1)[..., None])[..., 0]
        assert torch.allclose(chosen, distances.amin(2), atol=1e-4)
        return small.vqvae.lookup(codes)[level]

    books = small.vqvae.codebooks
    with torch.no_grad():
        small.vqvae.quantise(F.avg_pool2d(images, 2), nearest)
    for mine, theirs in zip(large.priors, small.priors, strict=True):
        assert mine.config == theirs.config
        for name, value in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[name], value), name
    ours, theirs = large.vqvae.state_dict(), small.vqvae.state_dict()
    kept = [name for name in theirs if not decodes(name)]
    assert "codebooks" in kept and len(kept) > 10
    assert all(torch.equal(ours[name], theirs[name]) for name in kept)


def test_the_manifest_says_what_the_base_was_and_no_path_of_this_machine(base, enlarged):
    small, large = bundle.load(base), bundle.load(enlarged)
    assert large.recipe["base"] == "small"
    told = large.recipe["enlarged_from"]
    assert (told["edition"], told["digest"]) == (small.edition, small.digest)
    assert told["dataset"] == small.dataset and told["recipe"] == small.recipe
    assert str(base.parent) not in json.dumps(large.manifest)
    figures = large.manifest["metrics"]["priors"]
    assert figures["taken_from"] == small.edition and figures["curves"] == []
    # Nats per code, and per canvas, of other functions than those that measured them.
    cells = [grid[0].numel() for grid in large.layout.as_grids(large.split("test"))]
    grids = large.layout.as_grids(large.split("validation"))
    nats = -joint.total_log_prob(large.priors, grids).mean().item()
    per_code = figures["validation_nats_per_code"]
    assert sum(n * c for n, c in zip(per_code, cells, strict=True)) == pytest.approx(nats, rel=1e-5)
    assert validation_nats(large.priors, grids) == pytest.approx(per_code)


@pytest.mark.parametrize("extra", [{}, {"ema": 0.9, "weight_decay": 0.1, "shift": 2}])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_decoder_learns_and_nothing_else_does(extra, precision):
    config = VQVAEConfig(16, hidden=8, residual=4, layers=1, num_codes=8, code_dim=4, levels=2)
    torch.manual_seed(3)
    small = VQVAE(config).eval()
    before = {name: value.clone() for name, value in small.state_dict().items()}
    images = torch.from_numpy(data.faces(48, 32)[0])
    larger = dataclasses.replace(config, image_size=32, enlarge=2)
    training = VQVAETraining(steps=30, batch=8, learning_rate=1e-2, precision=precision, **extra)
    net, rows = vqvae.fit(larger, images[:40], images[40:], training, base=small)
    fresh = VQVAE(larger)
    begin_from(fresh, small)
    assert rows[-1]["reconstruction"] < 0.9 * rows[0]["reconstruction"]
    assert rows[0]["perplexity"] == rows[-1]["perplexity"] and "train_commitment" not in rows[-1]
    assert reconstruction_error(net, images[40:]) < 0.9 * reconstruction_error(fresh, images[40:])
    for name, value in net.state_dict().items():
        if decodes(name):
            assert not torch.equal(value, fresh.state_dict()[name]), name
        else:
            assert torch.equal(value, before[name]), name
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_the_stages_of_the_decoder_that_fit_are_the_bases():
    config = VQVAEConfig(16, hidden=8, residual=4, layers=2, num_codes=8, code_dim=4, narrow=True)
    small, large = VQVAE(config), VQVAE(dataclasses.replace(config, image_size=64, enlarge=4))
    begin_from(large, small)
    theirs = small.state_dict()
    last = f"decoder.{len(small.decoder) - 1}."
    ours = large.state_dict()
    new = {name for name in theirs if not torch.equal(ours[name], theirs[name])}
    assert new == {f"{last}weight", f"{last}bias"} and len(ours) == len(theirs) + 4
    learns = {name for name, value in large.named_parameters() if value.requires_grad}
    assert learns == {name for name in large.state_dict() if decodes(name)}


WRONG = {
    "vqvae.num_codes=32 prior.num_codes=32": "vqvae.num_codes=32, expected 64",
    "vqvae.code_dim=8 discriminator.in_channels=16":
        "vqvae.code_dim=8, expected 16",
    "vqvae.hidden=9": "vqvae.hidden=9, expected 8",
    "vqvae.blocks=1": "vqvae.blocks=1, expected 2",
    "vqvae.narrow=true": "vqvae.narrow=True, expected False",
    "priors.1.hidden=9": r"priors.1.hidden=9, expected 8",
    "vqvae.image_size=32 vqvae.enlarge=1":
        "vqvae.enlarge=1, expected more than the base's 1: images that are larger",
    "vqvae.layers=1 vqvae.enlarge=4": "vqvae.layers=1, expected 2",
    "vqvae.image_size=128 priors.0.grid=[8,8] priors.1.grid=[16,16] priors.1.condition_grid=[8,8]":
        "averaged to 64 pixels .vqvae.enlarge=2., expected 32",
    "count=70": "count=70, expected 60: its prior would have learnt from images",
    "base=no-such-bundle": "no bundle 'no-such-bundle'",
}  # fmt: skip


@pytest.mark.parametrize("settings", WRONG)
def test_a_base_that_does_not_fit_is_refused_before_the_work(settings, base, tmp_path):
    recipe = on(base)
    for one in settings.split():  # some fit each other only together
        field, _, value = one.partition("=")
        recipe = _set(recipe, field, value)
    with pytest.raises(ValueError, match=WRONG[settings]):
        run.pretrain(recipe, tmp_path / "out", work=tmp_path / "work")
    assert not list(tmp_path.iterdir()), "nothing was begun"


def _set(recipe, field, value):
    """A recipe with a field changed; the VQ-VAE's only fit each other when all are changed."""
    if not field.startswith("vqvae."):
        return override(recipe, [f"{field}={value}"])
    sizes = dataclasses.asdict(recipe.vqvae) | {field.partition(".")[2]: json.loads(value)}
    return dataclasses.replace(recipe, vqvae=VQVAEConfig(**sizes))


def test_all_that_does_not_fit_is_told_at_once(base, tmp_path):
    recipe = on(base, "vqvae.hidden=9", "prior.layers=3", "vqvae.residual=4")
    told = r"base, bundle small 1 \w{12}: vqvae.hidden=9.*; vqvae.residual=4.*; priors.0.layers=3"
    with pytest.raises(ValueError, match=told + r".*; priors.1.layers=3.*\(--set\), or choose"):
        run.pretrain(recipe, tmp_path / "out")


def test_weights_of_32_bits_are_not_rounded(base, tmp_path):
    """Other codes would come of it."""
    made = bundle.load(base)
    with torch.no_grad():
        made.vqvae.codebooks.mul_(1.0001)
    precise = save(tmp_path / "precise", dataclasses.replace(made, version="2"), metrics={})
    with pytest.raises(ValueError, match="half=True, expected False: the base's weights have 32"):
        run.pretrain(on(precise), tmp_path / "out")
    large = bundle.load(run.pretrain(on(precise, "half=false"), tmp_path / "out"))
    assert torch.equal(large.vqvae.codebooks, made.vqvae.codebooks)


def test_a_base_and_an_oracle_do_not_go_together():
    with pytest.raises(ValueError, match="base='digits', expected None in a recipe with oracles"):
        override(short("oracle"), ["base=digits"])


@pytest.mark.faults
def test_a_run_on_a_base_that_was_cut_goes_on_and_ends_in_the_same_bundle(base, tmp_path, capsys):
    """Wherever the base is now."""
    recipe = on(base, "vqvae_training.checkpoint_every=1")
    whole = run.pretrain(recipe, tmp_path / "whole")
    for beginning in ("vqvae 2:", "reconstruction", "priors"):
        with contextlib.redirect_stdout(CutAt(beginning)), pytest.raises(KeyboardInterrupt):
            run.pretrain(recipe, tmp_path / "cut")
    moved = shutil.copytree(base, tmp_path / "elsewhere" / "small")
    capsys.readouterr()
    made = run.pretrain(dataclasses.replace(recipe, base=str(moved)), tmp_path / "cut")
    assert "begins anew" not in capsys.readouterr().out
    assert not list((tmp_path / "cut.work").glob("prior_*")), "no prior was trained"
    files = [bundle.load(path).manifest["files"] for path in (whole, made)]
    assert files[0] == files[1]


def test_a_run_does_not_go_on_with_another_edition_of_its_base(base, tmp_path):
    place, work = shutil.copytree(base, tmp_path / "small"), tmp_path / "work"
    run.pretrain(on(place), tmp_path / "one", work=work)
    save(place, dataclasses.replace(bundle.load(base), version="2"), metrics={})
    with pytest.raises(ValueError, match=r"base_digest: '\w{64}' then, '\w{64}' now.*--work"):
        run.pretrain(on(place), tmp_path / "two", work=work)


def test_a_base_may_itself_be_enlarged(enlarged, tmp_path):
    recipe = on(enlarged, "vqvae.image_size=128", "vqvae.enlarge=4")
    largest = bundle.load(run.pretrain(recipe, tmp_path / "largest"))
    images = to_float(data.load("faces", 128, count=60).part("test")[:4])
    expected = bundle.load(enlarged).vqvae.encode(F.avg_pool2d(images, 2))
    for found, grid in zip(largest.vqvae.encode(images), expected, strict=True):
        assert torch.equal(found, grid)
    assert largest.recipe["enlarged_from"]["recipe"]["enlarged_from"]["edition"]


def test_the_command_takes_a_base_and_the_manifest_no_folder(tmp_path):
    """A bundle that was made by a recipe is enlarged by the same recipe, with two sizes changed."""
    images = tmp_path / "images"
    images.mkdir()
    for i in range(30):
        Image.new("RGB", (64, 64), (8 * i, i, 99)).save(images / f"{i}.png")
    few = ["vqvae_training.steps=2", "prior_training.steps=2", "fakes=16", "discriminator_steps=2",
           "discriminator_batch=4", "other_discriminator.steps=2",
           "other_discriminator.batch=4", "selfsupervised.steps=2",
           "prior.hidden=8", "prior.layers=1", "vqvae.hidden=8"]  # fmt: skip
    words = ["pretrain", "--recipe", "small32", "--data", str(images)]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*words, "--work", str(one), "--set", *few]) == 0
    more = [*ENLARGED, f"base={one}/bundle"]
    assert main([*words, "--work", str(two), "--set", *few, *more]) == 0
    made = bundle.load(two / "bundle")
    assert made.image_size == 64 and made.layout == bundle.load(one / "bundle").layout
    assert made.recipe["command"].endswith("vqvae.image_size=64 vqvae.enlarge=2 base=BUNDLE")
    assert str(tmp_path) not in json.dumps(made.manifest)


@pytest.mark.parametrize("base", ["base=faces64fine", "base=None"])
def test_a_base_that_is_named_is_in_the_command(base):
    assert _without_path(base) == base
    assert _without_path("base=./faces64fine") == _without_path("base=/a/b") == "base=BUNDLE"


def test_what_does_not_learn_costs_no_gradients(base):
    plain, taken = on(base, "base=None"), on(base)
    (_, net, loss, _), *priors = costs.stages(plain, "cpu")
    ((_, frozen, decoder_loss, _),) = costs.stages(taken, "cpu")
    assert len(priors) == 2
    assert costs.weight_bytes(frozen) == costs.weight_bytes(net)
    decoder = 4 * sum(p.numel() for name, p in net.named_parameters() if decodes(name))
    assert costs.weight_bytes(frozen, learning=True) == decoder < costs.weight_bytes(net)
    assert costs.saved_bytes(frozen, decoder_loss) < costs.saved_bytes(net, loss)
    decoder_loss().backward()
