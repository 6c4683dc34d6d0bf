"""What pretraining costs: the count of saved bytes by hand, and a row for every net."""

import pytest
import torch
from torch import nn

from pretrain import costs
from pretrain.recipes import RECIPES
from ral_env.cli import main
from ral_env.nets import VQVAE, PixelCNN
from ral_env.nets.cache import Cache


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_saved_bytes_by_hand(device):
    """A linear layer saves its input, a sigmoid its output; weights are not counted."""
    with torch.device(device):
        net = nn.Sequential(nn.Linear(10, 20), nn.Sigmoid(), nn.Linear(20, 5))
        x = torch.zeros(7, 10)
    assert costs.saved_bytes(net, lambda: net(x).sum()) == 4 * (7 * 10 + 7 * 20)


def test_a_net_without_contents_saves_as_much_as_a_real_one():
    recipe = RECIPES["faces64"]
    real, meta = (
        {name: costs.saved_bytes(net, loss) for name, net, loss, _ in costs.stages(recipe, device)}
        for device in ("cpu", "meta")
    )
    assert real.keys() == {"vqvae", "prior_0"}
    for name in real:
        assert meta[name] == pytest.approx(real[name], rel=0.02)


def test_what_sampling_needs_by_hand():
    """The decoder's largest are a ReLU's input and output at half the image's size."""
    recipe = RECIPES["digits"]
    vqvae, prior = VQVAE(recipe.vqvae), PixelCNN(recipe.priors[0])
    weights = [sum(p.numel() for p in net.parameters()) * 4 for net in (vqvae, prior)]
    assert costs.sampling_bytes(vqvae, 3) == weights[0] + 2 * 4 * 3 * 48 * 16 * 16
    noise = 4 * 3 * 8 * 64  # of a row: 3 canvases, 8 cells, 64 codes
    held = Cache(prior.weights(), 3).held_bytes()
    assert held > weights[1], "weights are laid out anew"
    assert costs.sampling_bytes(prior, 3) == weights[1] + held + 3 * noise


def test_every_net_of_every_recipe_has_a_row(capsys):
    assert main(["bench", "pretraining", "--part", "memory"]) == 0
    out = capsys.readouterr().out
    cells = [line.split("|")[1] for line in out.splitlines() if line.startswith("| ")]
    named = [name.strip() for cell in cells for name in cell.split(",")]
    for recipe in RECIPES.values():
        nets = 1 if recipe.base else 1 + len(recipe.priors)
        assert named.count(recipe.name) == nets, recipe.name


def test_steps_are_timed_and_learn():
    """The timed step is a training step: it moves the weights."""
    steps = []

    def run_once(step, device):
        steps.append(step)
        step()
        return 1.0

    wrapped = costs.Variant(wrap=lambda loss: lambda: loss())
    variants = {**costs.VARIANTS, "wrapped": wrapped}
    rows = costs.speed(RECIPES["digits"], "cpu", variants, timer=run_once)
    assert [row["what"] for row in rows] == [
        f"{net}, {name}" for net in ("vqvae", "prior_0") for name in variants
    ]
    optimizer = steps[-1].args[0]
    assert all(state["step"] == len(variants) for state in optimizer.state.values())


def test_images_are_loaded_and_timed():
    row = costs.loading(RECIPES["digits"], count=20)
    assert row["what"] == "loading" and row["a second"].endswith(" images")


def test_an_unknown_recipe_is_refused(capsys):
    assert main(["bench", "pretraining", "--recipe", "cats"]) == 1
    assert "expected one of digits" in capsys.readouterr().err
