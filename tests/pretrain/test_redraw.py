"""The same experiment with other data, drawn from a bundle's oracle."""

import dataclasses

import numpy as np
import pytest
import torch

from pretrain import redraw
from pretrain.recipes import RECIPES
from pretrain.redraw import redraw_oracle
from ral_env import bundle
from ral_env.bundle import custom
from ral_env.nets import joint


def test_an_experiment_is_drawn_anew_from_the_same_oracle(tmp_path):
    """Other codes, another prior and discriminator; tokeniser, oracle and features stay."""
    made = bundle.load("oracle")
    hasty = dataclasses.replace(RECIPES["oracle"].prior_trainings[0], steps=20, validate_every=10)
    other = RECIPES["oracle"].other_discriminator
    assert other is not None
    recipe = dataclasses.replace(
        RECIPES["oracle"], prior_trainings=(hasty,), oracle_samples=260, fakes=64,
        discriminator_steps=4, discriminator_batch=16,
        other_discriminator=dataclasses.replace(other, steps=4, batch=16),
    )  # fmt: skip
    again = bundle.load(redraw_oracle(made, recipe, 7, tmp_path / "again"))
    assert again.layout == made.layout and again.dataset == made.dataset
    assert [len(again.split(name)) for name in again.splits] == [200, 10, 10, 40]
    assert set(again.discriminator_inputs) == {"image", "codes"}
    assert list(again.feature_nets) == list(made.feature_nets) == list(again.test_features)
    assert all(len(stored.values) == 40 for stored in again.test_features.values())
    assert not np.array_equal(again.split("train"), made.split("train")[:200])
    grids = [torch.from_numpy(again.split("test").astype(np.int64)).view(-1, 8, 8)]
    new, old = (joint.total_log_prob(b.oracles, grids) for b in (again, made))
    assert torch.equal(new, old), "the same oracle"
    assert not torch.equal(*(joint.total_log_prob(b.priors, grids) for b in (again, made)))
    with pytest.raises(ValueError, match="has no oracle"):
        redraw_oracle(bundle.load("digits"), recipe, 1, tmp_path / "none")


class Theirs(torch.nn.Module):
    """A codec of another make: ours, without a config."""

    def __init__(self, codec):
        super().__init__()
        self.codec = codec

    def decode(self, codes):
        return self.codec.decode(codes)

    def lookup(self, codes):
        return self.codec.lookup(codes)


@pytest.mark.parametrize(
    ("with_oracle", "message"),
    [(False, "'in memory' has no oracle"), (True, "'in memory' has nets without configs")],
)
def test_a_bundle_in_memory_is_refused_in_words(with_oracle, message, tmp_path):
    made = bundle.load("oracle")
    in_memory = custom.assemble(
        codec=Theirs(made.vqvae),
        discriminator=made.discriminator,
        codes=[grid[:20] for grid in made.codes],
        num_codes=made.layout.num_codes,
        oracles=made.oracles if with_oracle else (),
        discriminator_input="codes",
    )
    with pytest.raises(ValueError, match=message):
        redraw_oracle(in_memory, RECIPES["oracle"], 1, tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_the_old_name_still_works():
    with pytest.warns(FutureWarning, match="redraw_oracle"):
        assert redraw.redraw is redraw_oracle
