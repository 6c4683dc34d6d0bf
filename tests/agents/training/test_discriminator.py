"""The discriminator's update: losses by hand, direction, and the density ratio it estimates."""

import pytest
import torch
from conftest import FLOAT32, close
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from agents.training.discriminator import (
    Adversary,
    Canvases,
    DiscriminatorTraining,
    auc,
    augment,
    hinge_loss,
    logistic_loss,
    scores,
    wgan_gp_loss,
    with_r1,
)
from agents.training.processes import Processes
from ral_env import bundle as bundles
from ral_env.nets import PatchGAN, PatchGANConfig, represent


class Linear(nn.Module):
    """Score map = weight * x, so that every loss is a line of arithmetic."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return self.weight * x


def test_wgan_gp_equals_eq_5_by_hand():
    real, fake = torch.full((3, 1, 2, 2), 2.0), torch.full((3, 1, 2, 2), 0.5)
    losses = wgan_gp_loss(Linear(3.0), real, fake, torch.rand(3, 1, 1, 1), weight=10.0)
    # D is the mean of four cells, so its gradient is weight / 4 in each: norm 4 * (3/4)^2, rooted.
    assert losses["wasserstein"].item() == close(3 * 0.5 - 3 * 2.0)
    assert losses["gradient_penalty"].item() == close(10 * (1.5 - 1) ** 2)


def test_the_gradient_penalty_pulls_on_the_weights():
    """Its double backward: d/dw of 10 (w/2 - 1)^2 at w = 3 is 10 * 2 * 0.5 * 0.5."""
    net, x = Linear(3.0), torch.ones(3, 1, 2, 2)
    wgan_gp_loss(net, x, x, torch.rand(3, 1, 1, 1), 10.0)["gradient_penalty"].backward()
    assert net.weight.grad is not None and net.weight.grad.item() == close(5.0)


def test_logistic_loss_and_r1_by_hand():
    real, fake = torch.full((3, 1, 2, 2), 2.0), torch.full((3, 1, 2, 2), -1.0)
    losses = with_r1(logistic_loss, Linear(1.5), real, fake, r1=0.4)
    softplus = torch.nn.functional.softplus
    expected = softplus(torch.tensor(-3.0)) + softplus(torch.tensor(-1.5))
    assert losses["cross_entropy"].item() == close(expected.item())
    assert losses["r1"].item() == close(0.2 * 4 * (1.5 / 4) ** 2)


def test_hinge_loss_by_hand():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert hinge_loss(real, fake)["hinge"].item() == close((0 + 0.5) / 2 + (0 + 1) / 2)


def test_a_logistic_discriminator_learns_the_log_density_ratio():
    """Codes 0..3 with known frequencies: the score must come to log p / q."""
    torch.manual_seed(0)
    p, q = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    net = PatchGAN(PatchGANConfig(in_channels=4, hidden=8, layers=1))
    trainer = Adversary(
        net, DiscriminatorTraining(loss="logistic", learning_rate=1e-2, betas=(0.9, 0.999))
    )

    def one_hot(codes):
        return torch.eye(4)[codes][:, :, None, None].expand(-1, 4, 2, 2)

    for _ in range(300):
        trainer.update(one_hot(p.multinomial(512, True)), one_hot(q.multinomial(512, True)))
    found = scores(net, one_hot(torch.arange(4))).detach()
    assert (found - (p / q).log()).abs().max() < 0.25


@pytest.mark.parametrize("loss", ["wgan-gp", "logistic", "hinge"])
def test_updates_make_real_score_above_fake(loss):
    torch.manual_seed(0)
    net = PatchGAN(PatchGANConfig(in_channels=2, hidden=8, layers=2))
    trainer = Adversary(net, DiscriminatorTraining(loss=loss, learning_rate=1e-3))

    def draw(shift):
        return torch.randn(64, 2, 8, 8) + shift

    assert 0.2 < trainer.held_out_auc(draw(0.3), draw(-0.3)) < 0.8
    for _ in range(60):
        trainer.update(draw(0.3), draw(-0.3))
    assert trainer.held_out_auc(draw(0.3), draw(-0.3)) > 0.9
    assert not net.training


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=20),
    st.lists(st.integers(-3, 3), min_size=1, max_size=20),
)
def test_auc_is_the_share_of_pairs_in_the_right_order(real, fake):
    pairs = [(r > f) + 0.5 * (r == f) for r in real for f in fake]
    found = auc(torch.tensor(real).float(), torch.tensor(fake).float())
    assert found == close(sum(pairs) / len(pairs))


def test_augmentation_moves_whole_cells_and_drops_some():
    torch.manual_seed(0)
    x = torch.arange(1.0, 65).view(1, 1, 8, 8).expand(200, 2, 8, 8)
    moved = augment(x, 1, 0.0, Processes())
    assert torch.equal(moved[:, 0], moved[:, 1])
    offsets = set()
    for image in moved[:, 0]:
        value = image[4, 4].item() - x[0, 0, 4, 4].item()
        row, column = round(value / 8), round(value - 8 * round(value / 8))
        offsets.add((row, column))
        expected = torch.zeros(10, 10)
        expected[1:9, 1:9] = x[0, 0]
        assert torch.equal(image, expected[1 + row : 9 + row, 1 + column : 9 + column])
    assert len(offsets) == 9
    dropped = augment(x, 0, 0.25, Processes())
    assert 0.2 < (dropped[:, 0] == 0).float().mean() < 0.3
    assert augment(x, 0, 0.0, Processes()) is x


def test_a_loss_that_is_not_finite_is_refused_and_changes_nothing():
    net = Linear()
    trainer = Adversary(net, DiscriminatorTraining())
    bad = torch.full((2, 1, 2, 2), float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        trainer.update(bad, bad)
    assert net.weight.item() == 1.0


@pytest.mark.parametrize("kind", ["image", "codes"])
@pytest.mark.parametrize("memory", [2**28, 1, 0], ids=["kept", "in a file", "decoded anew"])
@pytest.mark.parametrize("name", ["tiny", "tiny_two"])
def test_real_canvases_are_shown_as_they_decode(request, name, kind, memory):
    """Kept or not, cut or whole, from the same random numbers; whole ones are decoded once."""
    bundle = bundles.load(request.getfixturevalue(name))
    decoded = []

    class Codec:
        def decode(self, codes):
            decoded.append(len(codes[0]))
            return bundle.vqvae.decode(codes)

        def lookup(self, codes):
            decoded.append(len(codes[0]))
            return bundle.vqvae.lookup(codes)

    adversary = Adversary(bundle.discriminator, DiscriminatorTraining(), codec=Codec(), input=kind)
    grids = bundle.layout.as_grids(bundle.split("train"))
    generator = torch.Generator().manual_seed(0)
    real = Canvases(grids, adversary, generator, memory)
    for rows in (8, 5, 8, 8):
        like = [grid[:, : grid.shape[1] * rows // 8] for grid in grids]
        state = generator.get_state()
        found = real.sample_inputs(6, like)
        generator.set_state(state)
        index = real.sample_indices(6)
        expected = represent(bundle.vqvae, [grid[index] for grid in like], kind)
        torch.testing.assert_close(found, expected, **FLOAT32)
    # One canvas tells how large they are, then all; and the batch that was cut.
    assert decoded == ([1, len(grids[0]), 6] if memory else [6] * 4)
