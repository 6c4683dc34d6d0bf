"""A mixture is the exact distribution that it says it is, and a bundle keeps it as an oracle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FLOAT32, close, tiny_parts

from ral_env import bundle
from ral_env.bundle.custom import assemble
from ral_env.nets import Mixture, MixtureConfig, PixelCNN, Prior, joint

FIXTURES = Path(__file__).parents[2] / "fixtures"

CONFIG = MixtureConfig((4, 4), num_codes=5, hidden=8, residual=8, layers=2, styles=3)


def mixture(config: MixtureConfig = CONFIG) -> Mixture:
    """Random weights, with styles that differ."""
    torch.manual_seed(0)
    net = Mixture(config).eval()
    with torch.no_grad():
        net.expert.condition_embedding.weight.mul_(5)
        net.expert.head.weight.mul_(5)
    return net


def some_codes(count: int = 6) -> torch.Tensor:
    return torch.randint(0, 5, (count, 4, 4), generator=torch.Generator().manual_seed(1))


def given(style: int, count: int) -> torch.Tensor:
    return torch.full((count, 1, 1), style)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_its_cells_add_up_to_the_log_of_the_mean_of_the_experts_likelihoods(temperature):
    net, codes = mixture(), some_codes()
    each = torch.stack(
        [
            net.expert.log_prob(codes, given(style, len(codes)), temperature).double().sum((1, 2))
            for style in range(3)
        ]
    )
    by_hand = (each.exp().sum(0) / 3).log()
    found = net.log_prob(codes, temperature=temperature)
    assert isinstance(net, Prior) and found.shape == codes.shape
    assert found.sum((1, 2)).numpy() == close(by_hand.numpy())
    assert (each.max(0).values - each.min(0).values).min() > 0.1, "the styles do differ"
    assert torch.equal(net.log_prob(codes, given(1, len(codes))), net.expert_log_prob(codes)[1])


@torch.no_grad()
@pytest.mark.parametrize("style", [None, 1])
def test_its_logits_are_the_log_probs_of_all_codes(style):
    net, codes = mixture(), some_codes()
    condition = None if style is None else given(style, len(codes))
    logits = net.logits(codes, condition)
    assert logits.shape == (*codes.shape, 5)
    found = logits.log_softmax(-1).gather(-1, codes.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found, net.log_prob(codes, condition), **FLOAT32)


@torch.no_grad()
def test_the_probabilities_of_every_cell_add_up_to_1_and_depend_on_cells_before_only():
    net, codes = mixture(), some_codes(1)
    for cell in (0, 5, 15):
        each = codes.flatten(1).repeat(5, 1)
        each[:, cell] = torch.arange(5)
        found = net.log_prob(each.view(5, 4, 4)).flatten(1)
        assert found[:, cell].exp().sum().item() == close(1)
        before = found[:, :cell]
        torch.testing.assert_close(before, before[:1].expand_as(before), **FLOAT32)
    upper = net.log_prob(codes[:, :2])
    torch.testing.assert_close(upper, net.log_prob(codes)[:, :2], **FLOAT32)


@torch.no_grad()
def test_sampling_keeps_the_prefix_and_follows_the_posterior_of_its_style():
    net = mixture()
    prefix = torch.full((4000, 4, 4), 5)
    rows = net.expert.sample(prefix[:1], given(2, 1), 1.0, torch.Generator().manual_seed(3))
    prefix[:, :1], prefix[:, 1, :2] = rows[0, :1], rows[0, 1, :2]
    found = net.sample(prefix, generator=torch.Generator().manual_seed(4))
    assert torch.equal(found.flatten(1)[:, :6], prefix.flatten(1)[:, :6])
    assert 0 <= int(found.min()) <= int(found.max()) < 5
    assert torch.equal(found, net.sample(prefix, generator=torch.Generator().manual_seed(4)))
    # Bayes by hand, from the six codes that are there.
    likelihood = net.expert_log_prob(rows).flatten(2)[:, 0, :6].double().sum(1).exp()
    weights = likelihood / likelihood.sum()
    assert net.posterior(prefix)[0].numpy() == close(weights.numpy())
    assert weights.max() > 0.4, "the prefix does tell of the style"
    # The next code is then distributed as log_prob says.
    each = rows.repeat(5, 1, 1)
    each[:, 1, 2] = torch.arange(5)
    expected = net.log_prob(each)[:, 1, 2].exp()
    shares = torch.bincount(found[:, 1, 2], minlength=5) / len(found)
    assert (shares - expected).abs().max().item() < 4 * 0.5 / len(found) ** 0.5


@torch.no_grad()
def test_whole_samples_have_the_entropy_that_log_prob_says():
    """-log p of own samples, and its mean given each cell's distribution, are the same number."""
    net = mixture()
    empty = torch.full((3000, 1, 4), 5)  # one row of four codes: all 625 can be listed
    rows = torch.cartesian_prod(*[torch.arange(5)] * 4).view(625, 1, 4)
    log_p = net.log_prob(rows).double().sum((1, 2))
    assert log_p.exp().sum().item() == close(1)
    drawn = net.sample(empty, generator=torch.Generator().manual_seed(0))
    nats = -net.log_prob(drawn).sum((1, 2))
    entropy = -(log_p.exp() * log_p).sum().item()
    assert nats.mean().item() == pytest.approx(entropy, abs=4 * nats.std().item() / 3000**0.5)


def test_codes_given_behind_an_empty_cell_tell_nothing_of_the_style():
    net = mixture()
    prefix = some_codes(2)
    prefix[:, 0, 0] = 5
    assert net.posterior(prefix).numpy() == close(1 / 3)
    assert torch.equal(net.sample(prefix)[:, 1:], prefix[:, 1:])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MixtureConfig((4, 4), 5, styles=6), "styles=6, expected 2 to num_codes=5"),
        (
            lambda: MixtureConfig((4, 4), 5, condition_layers=1, condition_grid=(2, 2), styles=2),
            "condition_grid=.*coarsest",
        ),
        (lambda: mixture().log_prob(some_codes(), given(3, 6)), "styles from 3 to 3, expected 0"),
        (lambda: mixture().log_prob(some_codes(), given(0, 5)), r"\(5, 1, 1\), expected .*\(6, "),
        (lambda: mixture().sample(some_codes() + 2), "prefix holds codes from 2 to 6"),
        (lambda: mixture().sample(some_codes(), temperature=-1), "temperature=-1"),
    ],
)
def test_what_does_not_fit_is_named(no_shape_checks, call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_bundle_keeps_a_mixture_as_its_oracle(tmp_path):
    net = mixture(MixtureConfig((8, 8), 16, hidden=8, residual=8, layers=2, styles=4))
    loaded = bundle.load(bundle.save(tmp_path / "b", **tiny_parts(oracles=[net])))
    (oracle,) = loaded.oracles
    assert isinstance(oracle, Mixture) and oracle.config == net.config and not oracle.training
    codes = loaded.layout.unflatten(torch.from_numpy(loaded.split("test").astype(np.int64)))
    found, expected = (joint.total_log_prob([each], codes) for each in (oracle, net))
    assert torch.equal(found, expected)


def test_a_bundle_of_the_format_before_mixtures_still_loads():
    loaded = bundle.load(FIXTURES / "bundle-format-2")
    assert "styles" not in loaded.manifest["configs"]["oracles"][0]
    assert [type(oracle) for oracle in loaded.oracles] == [PixelCNN, PixelCNN]


def test_your_own_bundle_takes_a_mixture_as_a_prior_and_as_an_oracle():
    parts = tiny_parts()
    net = mixture(MixtureConfig((8, 8), 16, hidden=8, residual=8, layers=2, styles=4))
    made = assemble(
        codec=parts["vqvae"],
        discriminator=parts["discriminator"],
        codes=parts["codes"],
        num_codes=16,
        priors=[net],
        oracles=[net],
    )
    assert made.oracles == (net,)
