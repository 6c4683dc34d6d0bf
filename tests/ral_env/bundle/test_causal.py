"""A prior of a transformers model samples by its cache what its plain forward says."""

from typing import Any

import pytest
import torch
from conftest import FLOAT32

from ral_env.bundle.causal import CausalPrior
from ral_env.nets import Prior, UncachedPrior

transformers = pytest.importorskip("transformers", reason="pip install 'ral-env[transformers]'")

CODES = 7


@pytest.fixture(scope="module", params=[0, 4], ids=["coarsest", "finer"])
def case(request) -> tuple[CausalPrior, Any]:
    """A prior of random weights over 4x4 codes, and of a finer level the 2x2 codes above."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=2 * CODES + 1 if request.param else CODES + 1, n_positions=16 + request.param,
        n_embd=16, n_layer=2, n_head=2, initializer_range=0.5,
        bos_token_id=CODES, eos_token_id=CODES,
    )  # fmt: skip
    prior = CausalPrior(transformers.GPT2LMHeadModel(config), CODES).eval()
    return prior, torch.randint(CODES, (3, 2, 2)) if request.param else None


def prefixes() -> dict[str, torch.Tensor]:
    real = torch.randint(CODES, (3, 4, 4), generator=torch.Generator().manual_seed(1))
    rows, holes = real.clone(), real.clone()
    rows[:, 2:] = CODES
    holes[0, 1, 1:3] = holes[1, 3, 3] = holes[2, 0, 0] = CODES
    empty = torch.full_like(real, CODES)
    return {"empty": empty, "rows": rows, "holes": holes, "short": empty[:, :2], "full": real}


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("kind", list(prefixes()))
def test_the_cache_samples_what_the_plain_forward_does(case, kind, temperature):
    prior, condition = case
    prefix, noise = prefixes()[kind], [torch.Generator().manual_seed(5) for _ in range(2)]
    if condition is not None:
        condition = condition[:, : max(1, prefix.shape[1] // 2)]
    plain = UncachedPrior(prior.logits, CODES).sample(prefix, condition, temperature, noise[0])
    found = prior.sample(prefix, condition, temperature, noise[1])
    assert torch.equal(found, plain)
    assert torch.equal(found[prefix != CODES], prefix[prefix != CODES])
    assert found.max() < CODES and torch.equal(*(g.get_state() for g in noise))


def test_log_probs_are_the_models_own_on_the_sequence(case):
    """Against the model called by hand, one token more at a time; so it is causal, too."""
    prior, condition = case
    codes = prefixes()["full"]
    before = torch.full((3, 1), CODES)
    if condition is not None:
        before = torch.cat([condition.flatten(1) + CODES + 1, before], 1)
    by_hand = []
    for cell in range(16):
        tokens = torch.cat([before, codes.flatten(1)[:, :cell]], 1)
        log_probs = prior.model(tokens).logits[:, -1, :CODES].log_softmax(-1)
        by_hand.append(log_probs.gather(1, codes.flatten(1)[:, cell, None]))
    found = prior.log_prob(codes, condition)
    torch.testing.assert_close(found.flatten(1), torch.cat(by_hand, 1), **FLOAT32)
    assert found.grad_fn is not None and isinstance(prior, Prior)


def test_it_is_a_prior_of_a_bundle_that_an_environment_plays(case):
    """``assemble`` tries causality, probabilities and samples of it."""
    from probes import OneHot, Probe

    from ral_env.bundle.custom import assemble

    prior, condition = case
    if condition is not None:
        pytest.skip("one level")
    bundle = assemble(
        codec=OneHot(CODES),
        discriminator=Probe("one code"),
        discriminator_input="codes",
        codes=torch.randint(CODES, (20, 4, 4)),
        num_codes=CODES,
        priors=[prior],
    )
    assert bundle.priors == (prior,)
