"""Decoders and priors of any make are made an environment of: see docs/your-own-model.md."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import close
from safetensors.torch import load_file
from torch import nn

from agents import reinforce
from ral_env import bundle as bundles
from ral_env.bundle.custom import Codec, Prior, UncachedPrior, assemble
from ral_env.complete import complete
from ral_env.film import frames
from ral_env.nets import VQVAE, PixelCNN, PixelCNNConfig, VQVAEConfig, joint
from ral_env.starts import STARTS

PAGE = Path(__file__).parents[3] / "docs" / "your-own-model.md"
CODES = 11
GRIDS = {"one level": [(4, 4)], "two levels": [(4, 4), (8, 8)]}


class Painter(nn.Module):
    """A codec of nothing but colours: a code's square has the colour of its level's table."""

    def __init__(self, sides=(4,), size: int = 32):
        super().__init__()
        self.sides, self.size = sides, size
        self.colours = nn.Parameter(torch.rand(len(sides), CODES, 3) * 2 - 1)

    def decode(self, codes):
        parts = []
        for table, side, grid in zip(self.colours, self.sides, codes, strict=True):
            cell = self.size // side
            part = table[grid].permute(0, 3, 1, 2)
            parts.append(part.repeat_interleave(cell, 2).repeat_interleave(cell, 3))
        return torch.stack(parts).mean(0)


class PainterWithVectors(Painter):
    def lookup(self, codes):
        return [t[grid].permute(0, 3, 1, 2) for t, grid in zip(self.colours, codes, strict=True)]

    def encode(self, images):
        assert len(self.sides) == 1
        seen = F.adaptive_avg_pool2d(images, self.sides[0]).permute(0, 2, 3, 1)
        return [torch.cdist(seen.flatten(1, 2), self.colours[0]).argmin(2).view(seen.shape[:3])]


class OneConvolution(nn.Module):
    """A discriminator of another make."""

    stride = 8

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 1, 8, stride=8)

    def forward(self, x):
        return self.patch(x)


class Recurrent(nn.Module):
    """A causal net over the raster order, which also sees the code of the level above each cell."""

    shift = True  # each cell sees the cells before it only

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(CODES + 1, 8)
        self.above = nn.Embedding(CODES, 8)
        self.body = nn.GRU(8, 16, batch_first=True)
        self.head = nn.Linear(16, CODES)

    def forward(self, codes, condition=None):
        seen = codes.flatten(1)
        if self.shift:
            seen = F.pad(seen[:, :-1], (1, 0), value=CODES)
        x = self.embedding(seen)
        if condition is not None:
            scale = codes.shape[2] // condition.shape[2]
            wide = condition.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
            x = x + self.above(wide.flatten(1))
        return self.head(self.body(x)[0]).unflatten(1, codes.shape[1:])


def parts(levels: str = "one level", **changes: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    grids = GRIDS[levels]
    rng = np.random.default_rng(0)
    return {
        "codec": Painter([h for h, _ in grids]),
        "discriminator": OneConvolution(),
        "codes": [rng.integers(0, CODES, (20, *grid)) for grid in grids],
        "num_codes": CODES,
        "priors": [UncachedPrior(Recurrent(), CODES) for _ in grids],
        "dataset": "squares",
        "reward_scale": 0.5,
        **changes,
    }


def made_env(bundle: bundles.Bundle, **options: Any) -> Any:
    """An environment of a bundle of any shape, with all attributes of its own."""
    return gym.make("RALBundle-v0", bundle=bundle, render_mode="rgb_array", **options).unwrapped


def test_the_nets_of_this_package_follow_the_protocols():
    vqvae = VQVAE(VQVAEConfig(32, 8, 4, num_codes=16, code_dim=6))
    assert isinstance(vqvae, Codec) and isinstance(Painter(), Codec)
    prior = PixelCNN(PixelCNNConfig((4, 4), CODES, hidden=8, residual=8, layers=1))
    assert isinstance(prior, Prior) and isinstance(UncachedPrior(prior, CODES), Prior)
    assert not isinstance(nn.Identity(), Codec) and not isinstance(nn.Identity(), Prior)


@pytest.mark.parametrize("levels", GRIDS)
@pytest.mark.parametrize("reward", ["single", "intermediate", "rowwise"])
def test_episodes_are_played_and_rendered(levels, reward):
    bundle = assemble(**parts(levels, oracles=parts(levels)["priors"]))
    env = made_env(bundle, reward=reward, start="partial")
    assert bundle.image_size == 32 and env.bundle.dataset == "squares"
    for seed in range(4):
        observation, info = env.reset(seed=seed)
        terminated = False
        while not terminated:
            observation, _, terminated, _, info = env.step(env.action_space.sample())
        frame = env.render()
        assert frame.shape == (256, 256, 3)
        rows = info["rows"] if STARTS[info["start"]] == "scratch" else 4
        assert info["score_map"].shape == (rows, 4) and np.isfinite(info["nll_oracle"])
        grids = env.layout.unflatten(torch.from_numpy(observation[None]).long(), rows)
        with torch.no_grad():
            colour = (bundle.vqvae.decode(grids)[0, :, 0, 0].numpy() + 1) * 127.5
        assert np.abs(frame[0, 0] - colour).max() <= 1


def test_unwritten_cells_of_any_level_are_a_checker():
    env = made_env(assemble(**parts("two levels")))
    env.reset(seed=0)
    for _ in range(16 + 1):  # all of the top and one code of the bottom
        env.step(0)
    frame = env.render()
    shown = [frame[y, x].tolist() for y, x in ((0, 0), (0, 40), (40, 0), (70, 0))]
    assert shown == [shown[0], [112] * 3, [112] * 3, [144] * 3]
    assert shown[0] not in shown[1:]


def test_the_vector_environment_rewards_as_the_single_one():
    bundle = assemble(**parts())
    envs: Any = gym.make_vec("RALBundle-v0", 3, bundle=bundle, autoreset_mode="disabled").unwrapped
    canvas, _ = envs.reset(seed=5)
    codes = np.random.default_rng(1).integers(0, CODES, canvas.shape)
    _, rewards, _, _, _ = envs.complete(codes)
    env = gym.make("RALBundle-v0", bundle=bundle)
    for row, expected in zip(codes, rewards, strict=True):
        env.reset()
        *_, last = (env.step(code)[1] for code in row)
        assert last == close(expected)


@pytest.mark.parametrize("levels", GRIDS)
def test_films_are_made_and_are_the_seeds(levels):
    env = made_env(assemble(**parts(levels)))
    one, again, other = (frames(env, seed=seed, every=8) for seed in (1, 1, 2))
    assert len(one) == env.layout.length // 8 + 1
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_images_are_completed_where_the_codec_encodes():
    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32)).astype(np.uint8)
    kwargs: dict[str, Any] = {"num_envs": 2, "autoreset_mode": "disabled"}
    bundle = assemble(**parts(codec=PainterWithVectors()))
    done = complete(gym.make_vec("RALBundle-v0", bundle=bundle, **kwargs), image, rows=2)
    assert np.array_equal(done.images[0, :, :16], done.images[1, :, :16])
    envs = gym.make_vec("RALBundle-v0", bundle=assemble(**parts()), **kwargs)
    with pytest.raises(ValueError, match=r"Painter has no encode\(images\)"):
        complete(envs, image)


@pytest.mark.parametrize("levels", GRIDS)
@pytest.mark.parametrize("kind", ["image", "codes"])
def test_the_loop_trains_it_and_saves_its_weights(levels, kind, tmp_path):
    changes: dict[str, Any] = {"codec": PainterWithVectors([h for h, _ in GRIDS[levels]])}
    if kind == "codes":
        net = OneConvolution()
        net.stride, net.patch = 2, nn.Conv2d(3 * len(GRIDS[levels]), 1, 2, stride=2)
        changes |= {"discriminator": net, "discriminator_input": "codes"}
    bundle = assemble(**parts(levels, **changes))
    before = copy.deepcopy(bundle.priors)
    config = dataclasses.replace(
        reinforce.PRESETS["small"],
        env="RALBundle-v0",
        start="partial",
        iterations=2,
        canvases=4,
        discriminator_warmup=1,
        discriminator_updates=1,
        discriminator_input=kind,
        gate_auc=0.0,
        ema=0.0,
    )
    result = reinforce.train(config, tmp_path, progress=False, bundle=bundle)
    assert len(result.history) == 2
    for level, nets in enumerate(zip(before, bundle.priors, result.policies, strict=True)):
        old, still, new = (net.state_dict() for net in nets)
        assert all(torch.equal(old[key], still[key]) for key in old)  # it learnt in a copy
        assert not torch.equal(old["logits.head.weight"], new["logits.head.weight"])
        saved = load_file(tmp_path / f"prior_{level}.safetensors")
        assert all(torch.equal(saved[key], new[key]) for key in new)
    assert (tmp_path / "discriminator.safetensors").is_file()


def test_without_priors_it_can_be_played_but_not_sampled():
    bundle = assemble(**parts(priors=()))
    env = gym.make("RALBundle-v0", bundle=bundle, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(0)
    with pytest.raises(ValueError, match="0 priors for 1 levels"):
        frames(env)
    config = reinforce.Config(env="RALBundle-v0", canvases=2)
    with pytest.raises(ValueError, match="no priors"):
        reinforce.train(config, bundle=bundle, progress=False)


def test_a_bundle_in_memory_can_be_copied_and_sent_elsewhere():
    bundle = assemble(**parts())
    for other in (copy.deepcopy(bundle), pickle.loads(pickle.dumps(bundle))):
        assert type(other) is bundles.Bundle and repr(other) == repr(bundle)
        assert other.vqvae is not bundle.vqvae
        assert torch.equal(
            other.vqvae.get_parameter("colours"), bundle.vqvae.get_parameter("colours")
        )
        assert np.array_equal(other.split("test"), bundle.split("test"))


def test_splits_are_tenths_or_those_given():
    assert assemble(**parts()).splits == {
        "train": (0, 16),
        "validation": (16, 18),
        "test": (18, 20),
    }
    given = {"train": (5, 20), "validation": (0, 2), "test": (2, 5)}
    bundle = assemble(**parts(splits=given))
    assert bundle.splits == given and len(bundle.split("train")) == 15
    assert bundle.codes[0].shape == (20, 4, 4) and bundle.flat_codes.dtype == np.uint8


def test_an_id_with_images_of_another_shape_refuses_it():
    with pytest.raises(
        ValueError, match=r"but the bundle Bundle\('in memory'.*has 32 pixels and grids"
    ):
        gym.make("RALFaces32-v0", bundle=assemble(**parts()))


def test_the_joint_distribution_takes_priors_of_both_kinds():
    """A PixelCNN for the top, one of another make for the bottom."""
    made = parts("two levels")
    top = PixelCNN(PixelCNNConfig((4, 4), CODES, hidden=8, residual=8, layers=1))
    bundle = assemble(**{**made, "priors": [top, made["priors"][1]]})
    prefixes = [torch.full((2, *grid), CODES) for grid in bundle.layout.levels]
    grids = joint.sample(bundle.priors, prefixes, generator=torch.Generator().manual_seed(0))
    total = joint.total_log_prob(bundle.priors, grids)
    assert total.shape == (2,) and (total < 0).all()


def test_a_class_that_is_no_more_is_found_under_its_old_name():
    with pytest.warns(FutureWarning, match=r"OwnBundle is called ral_env\.bundle\.Bundle now"):
        from ral_env.bundle.custom import OwnBundle
    assert OwnBundle is bundles.Bundle


# --- what is refused ---


class Broken(Painter):
    def __init__(self, change, **arguments):
        super().__init__(**arguments)
        self.change = change

    def decode(self, codes):
        return self.change(super().decode(codes), codes)


def whole_only(images, codes):
    if codes[0].shape[1] < 4:
        raise RuntimeError("shape mismatch")
    return images


def leaky(**attributes: Any) -> UncachedPrior:
    net = Recurrent()
    with torch.no_grad():
        net.embedding.weight.mul_(5)
        net.head.weight.mul_(5)
    for name, value in attributes.items():
        setattr(net, name, value)
    return UncachedPrior(net, CODES)


class Backwards(Recurrent):
    """Reads the canvas from its end."""

    def forward(self, codes, condition=None):
        return super().forward(codes.flip(1, 2), condition).flip(1, 2)


class OddSampler(UncachedPrior):
    def __init__(self, change):
        super().__init__(Recurrent(), CODES)
        self.change = change

    def sample(self, prefix, condition=None, temperature=1.0, generator=None):
        return self.change(self, prefix, super().sample(prefix, condition, temperature, generator))


class Wrong(nn.Module):
    """Log-probs that are something else."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def log_prob(self, codes, condition=None, temperature=1.0):
        return self.change(torch.full(codes.shape, -np.log(CODES)))

    def sample(self, prefix, condition=None, temperature=1.0, generator=None):
        raise AssertionError


def with_stride(stride: Any) -> OneConvolution:
    net = OneConvolution()
    net.stride = stride
    return net


def odd_codec(change):
    return {"codec": Broken(change)}


def odd_sampler(change):
    return {"priors": [OddSampler(change)]}


GRID = np.zeros((20, 4, 4), int)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no module": ({"codec": object()}, r"codec is a object, expected a torch.nn.Module"),
    "no decode": ({"codec": nn.Identity()}, r"Identity has no decode\(codes\)"),
    "decode that fails": (
        odd_codec(lambda images, codes: images + torch.zeros(7)),
        r"codec.decode of codes \(2, 4, 4\) failed: RuntimeError",
    ),
    "no tensor": (odd_codec(lambda images, codes: [images]), "gave a list, expected a tensor"),
    "not square": (
        odd_codec(lambda images, codes: images[:, :, :, :24]),
        r"gave torch.float32 \(2, 3, 32, 24\), expected torch.float32 \(2, 3, 24, 24\)",
    ),
    "half precision": (odd_codec(lambda images, codes: images.half()), "torch.float16"),
    "range": (odd_codec(lambda images, codes: images * 127), "expected -1 to 1: rescale or clamp"),
    "not finite": (odd_codec(lambda images, codes: images / 0 * 0), "values from nan"),
    "whole canvases only": (
        odd_codec(whole_only),
        r"codes \(2, 2, 4\) \(fewer rows: if it can't, fill them up and cut the image\) failed",
    ),
    "not less tall": (
        odd_codec(lambda images, codes: F.interpolate(images, (32, 32))),
        r"gave torch.float32 \(2, 3, 32, 32\), expected torch.float32 \(2, 3, 16, 32\)",
    ),
    "no integers": (
        {"codes": GRID / 1},
        r"codes are \['float64 \(20, 4, 4\)'\], expected integers",
    ),
    "flat": ({"codes": GRID.reshape(20, 16)}, r"expected integers \(N, h, w\)"),
    "out of range": ({"codes": GRID + 11}, r"codes run from 11 to 11, expected 0 to 10"),
    "oblong": ({"codes": GRID[:, :2]}, "expected h == w"),
    "splits": ({"splits": {"train": (0, 20)}}, "splits are .* expected .*validation"),
    "few": ({"codes": GRID[:5]}, r"splits are .*'validation': \(4, 4\)"),
    "scale": ({"reward_scale": 0}, "reward_scale=0, expected above 0"),
    "too many priors": ({"priors": [leaky(), leaky()]}, "2 priors for 1 levels"),
    "no stride": ({"discriminator": nn.Identity()}, "discriminator.stride is None"),
    "wrong stride": (
        {"discriminator": with_stride(4)},
        r"gave \(2, 1, 4, 4\), expected finite scores \(2, 1, 8, 8\): its stride is 4",
    ),
    "no lookup": ({"discriminator_input": "codes"}, r"Painter has no lookup\(codes\)"),
    "input": ({"discriminator_input": "pixels"}, "expected 'image' or 'codes'"),
    "only logits": ({"priors": [Recurrent()]}, "without log_prob or sample: UncachedPrior makes"),
    "summed": (
        {"priors": [Wrong(lambda x: x.sum((1, 2)))]},
        r"log_prob of codes \(2, 4, 4\) gave \(2,\), expected \(2, 4, 4\)",
    ),
    "probabilities": ({"priors": [Wrong(torch.exp)]}, "expected 0 or less: natural logs"),
    "in bits": ({"priors": [Wrong(lambda x: x / np.log(2))]}, "add up to 0.3.*, expected 1"),
    "sees later codes": (
        {"priors": [UncachedPrior(Backwards(), CODES)]},
        r"priors\[0\].log_prob of the same codes differs by .* \(is there a causal mask\?\)",
    ),
    "sees its own code": ({"priors": [leaky(shift=False)]}, "does a cell see its own code"),
    "changes given codes": (
        odd_sampler(lambda self, prefix, codes: (codes + 1) % CODES),
        "changed codes that were given",
    ),
    "leaves cells EMPTY": (
        odd_sampler(lambda self, prefix, codes: prefix),
        "wrote codes from 11 to 11, expected 0 to 10",
    ),
    "codes of 32 bits": (odd_sampler(lambda self, prefix, codes: codes.int()), "gave torch.int32"),
    "ignores the generator": (
        odd_sampler(
            lambda self, prefix, codes: torch.where(
                prefix == CODES, torch.randint_like(codes, CODES), prefix
            )
        ),
        "other codes with the same seed: take all randomness from `generator`",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_part_that_does_not_do_what_is_needed_is_refused_with_the_reason(what):
    changes, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        assemble(**parts(**changes))


# --- the page ---


def script() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return found


@pytest.mark.expensive
@pytest.mark.skipif(not find_spec("diffusers"), reason="pip install diffusers")
def test_the_pages_script_runs_as_it_stands(tmp_path):
    """A VQModel of diffusers and a transformer: an episode, a picture, two updates."""
    report = """
import json
before, after = (dict(p.named_parameters()) for p in (bundle.priors[0], tuned))
print(json.dumps({
    "layout": repr(bundle.layout),
    "frames": [list(frame.shape) for frame in film],
    "picture": list(picture.shape),
    "reward": reward,
    "map": list(info["score_map"].shape),
    "canvas": info["final_canvas"].tolist(),
    "losses": [row["policy_loss"] for row in result.history],
    "moved": sum(not torch.equal(before[key], after[key]) for key in before) / len(before),
}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script() + report],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    end = json.loads(done.stdout.splitlines()[-1])
    assert end["layout"] == "CodeLayout(levels=((8, 8),), num_codes=64)"
    assert end["frames"] == [[256, 256, 3]] * 5 and end["picture"] == [256, 256, 3]
    assert abs(end["reward"]) <= 1 and end["map"] == [4, 4]
    assert len(end["canvas"]) == 64 and max(end["canvas"]) < 64
    assert len(end["losses"]) == 2 and np.isfinite(end["losses"]).all()
    assert end["moved"] > 0.9


def test_priors_of_two_levels_from_a_shipped_bundle_are_accepted():
    """A finer prior looks around in the level above: its last rows change with what is below."""
    made = bundles.load("oracle-two-level")
    bundle = assemble(
        codec=made.vqvae,
        discriminator=made.discriminator,
        discriminator_input=made.discriminator_input,
        codes=made.layout.as_grids(made.split("test")),
        num_codes=made.layout.num_codes,
        priors=made.priors,
    )
    assert bundle.layout == made.layout
