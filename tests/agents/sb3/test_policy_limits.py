"""What the policy does not take says so, and what to use; compiling it changes nothing."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from sb3_models import canvases, envs_of, policy_of
from stable_baselines3 import A2C, PPO
from torch import nn

from agents.sb3 import PixelCNNPolicy, defaults
from ral_env import bundle


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"net_arch": [64]}, "takes no net_arch .*sizes are configs and value_hidden"),
        ({"activation_fn": nn.ReLU}, "takes no activation_fn .*configs and value_hidden"),
        ({"share_features_extractor": False}, "takes no share_features_extractor"),
        ({"log_std_init": -1.0}, "takes no log_std_init .*continuous actions"),
        ({"value_hiden": 9}, r"takes no value_hiden \(value_hiden=9\): expected value_hidden"),
        ({"value_hidden": 0}, r"value_hidden=0, expected a number in \[1, inf\)"),
        ({"value_rate": -1.0}, r"value_rate=-1.0, expected a number in \(0, inf\)"),
        ({"use_sde": True}, "continuous actions"),
    ],
)
@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_settings_that_it_does_not_have_are_refused(tiny, algorithm, settings, message):
    envs = envs_of(tiny, 2)
    arguments = defaults(algorithm, envs, policy_kwargs=settings)
    if "use_sde" in settings:  # SB3 has an argument of its own for it
        arguments["use_sde"] = arguments["policy_kwargs"].pop("use_sde")
    with pytest.raises(ValueError, match=message):
        algorithm(PixelCNNPolicy, envs, **arguments)


def test_priors_that_are_not_wrapped_are_refused(tiny):
    envs = envs_of(tiny, 2)
    arguments = defaults(PPO, envs, policy_kwargs={"prior": bundle.load(tiny).priors})
    with pytest.raises(ValueError, match="prior is a tuple, expected InitialPrior"):
        PPO(PixelCNNPolicy, envs, **arguments)


@pytest.mark.parametrize("name", ["tiny", "tiny_two"])
def test_compiled_it_says_what_it_said(request, name):
    policy = policy_of(request.getfixturevalue(name))
    first, _ = canvases(policy, "full", 8)
    found = []
    for said in (policy, torch.compile(policy)):
        torch.manual_seed(0)
        with torch.no_grad():
            found.append(said(first))
    for plain, compiled in zip(*found, strict=True):
        assert torch.equal(plain, compiled)


def export(policy: Any, first: torch.Tensor) -> None:
    torch.export.export(policy, (first,))


def trace(policy: Any, first: torch.Tensor) -> None:
    torch.jit.trace(policy, (first,))


def script(policy: Any, first: torch.Tensor) -> None:
    torch.jit.script(policy)


@pytest.mark.parametrize("leave", [export, trace, script])
def test_exporting_it_is_refused_with_a_word_on_what_can_be(tiny, leave):
    policy = policy_of(tiny)
    first, _ = canvases(policy, "full", 8)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="Export a prior, whose logits"):
        warnings.simplefilter("ignore")  # torch's own, of torch.jit
        leave(policy, first)


class Logits(nn.Module):
    """What can be exported."""

    def __init__(self, prior: Any):
        super().__init__()
        self.prior = prior

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return self.prior.logits(codes)


def test_its_priors_can_be_exported(tiny):
    prior = policy_of(tiny).priors[0]
    codes = torch.from_numpy(bundle.load(tiny).codes[0][:3].astype("int64"))
    exported = torch.export.export(Logits(prior), (codes,)).module()
    torch.testing.assert_close(exported(codes), prior.logits(codes))  # type: ignore[operator]
