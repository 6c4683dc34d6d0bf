"""The suite checks the shapes that signatures state; what is legal passes, users pay nothing."""

import copy
import inspect
import pickle
import subprocess
import sys
from typing import Any, cast

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from ral_env.nets import (
    VQVAE,
    Codec,
    FeatureNet,
    FeatureNetConfig,
    Mixture,
    PatchGAN,
    PatchGANConfig,
    PixelCNN,
    PixelCNNConfig,
    Prior,
    UncachedPrior,
    VQVAEConfig,
    joint,
    represent,
)


def prior(**overrides) -> PixelCNN:
    torch.manual_seed(0)
    return PixelCNN(PixelCNNConfig((4, 4), 5, 8, 8, 2, output_layers=1, **overrides)).eval()


def vqvae() -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(VQVAEConfig(16, hidden=8, residual=4, layers=2, num_codes=7, code_dim=3)).eval()


CODES = torch.zeros(2, 4, 4, dtype=torch.int64)
IMAGES = torch.zeros(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("call", "parameter"),
    [
        (lambda: prior().log_prob(CODES[0]), "codes"),
        (lambda: prior().log_prob(CODES.int()), "codes"),
        (lambda: prior().logits(CODES.float()), "codes"),
        (lambda: prior().sample(CODES[..., None]), "prefix"),
        (lambda: prior().readout(torch.zeros(2, 4, 8)), "hidden"),
        (
            lambda: prior(condition_layers=1, condition_grid=(2, 2)).log_prob(CODES, CODES[:1]),
            "condition",  # of another batch
        ),
        (lambda: joint.log_prob([prior()], [CODES[0]]), "grids"),
        (lambda: joint.sample([cast(Any, nn.Linear(1, 1))], [CODES]), "priors"),
        (lambda: vqvae().encode(IMAGES.byte()), "images"),
        (lambda: vqvae().decode(cast(Any, CODES)), "codes"),  # not a list of grids
        (lambda: represent(cast(Any, prior()), [CODES], "image"), "codec"),
        (lambda: PatchGAN(PatchGANConfig(hidden=2, layers=1))(IMAGES[0]), "x"),
        (lambda: FeatureNet(FeatureNetConfig(hidden=2)).features(IMAGES.long()), "images"),
    ],
)
def test_a_wrong_shape_or_dtype_is_found_at_the_call(call, parameter):
    with pytest.raises(TypeCheckError, match=f"parameter '{parameter}'"):
        call()


def test_a_wrong_result_is_found_where_it_is_returned():
    net = vqvae()
    net.decoder = nn.Sequential(net.decoder, nn.Flatten(2))
    with pytest.raises(TypeCheckError, match="return value"):
        net.decode([CODES])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_legal(dtype):
    log_prob = prior().to(dtype).log_prob(CODES, temperature=1)  # an int is a number, too
    assert log_prob.dtype == dtype and log_prob.shape == CODES.shape
    images = vqvae().to(dtype).decode([CODES])
    assert images.dtype == dtype
    assert FeatureNet(FeatureNetConfig(hidden=2)).eval().to(dtype).features(images).dtype == dtype


def test_codes_of_other_integers_decode_to_the_same_images():
    net = vqvae()
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(net.decode([CODES.to(dtype)]), net.decode([CODES]))
    assert net.decode((CODES,)).shape == IMAGES.shape, "grids may be a tuple"


def test_priors_may_be_one_module():
    priors = [prior(), prior(condition_layers=1, condition_grid=(4, 4))]
    grids = joint.draw(nn.ModuleList(priors), 2, temperature=0.0)
    assert all(map(torch.equal, grids, joint.draw(priors, 2, temperature=0.0)))
    assert torch.equal(
        joint.total_log_prob(nn.ModuleList(priors), grids), joint.total_log_prob(priors, grids)
    )


def test_networks_that_are_nowhere_yet_and_under_autocast_are_legal():
    with torch.device("meta"):
        net = PixelCNN(PixelCNNConfig((4, 4), 5, 8, 8, 2, output_layers=1))
        assert net.log_prob(torch.zeros(2, 4, 4, dtype=torch.int64)).shape == CODES.shape
    with torch.autocast("cpu", torch.bfloat16):
        assert prior().logits(CODES).dtype == torch.bfloat16


def test_networks_are_copied_and_pickled_as_before():
    for net in (prior(), vqvae()):
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert other.state_dict().keys() == net.state_dict().keys()
            assert isinstance(other, Prior if isinstance(net, PixelCNN) else Codec)


def test_every_documented_edge_states_its_shapes():
    """A bare ``Tensor`` in a signature would be checked for nothing."""
    edges = [
        *(PixelCNN.log_prob, PixelCNN.logits, PixelCNN.hidden, PixelCNN.readout, PixelCNN.sample),
        *(PixelCNN.context, Prior.log_prob, Prior.sample, Codec.decode, represent),
        *(Mixture.log_prob, Mixture.expert_log_prob, Mixture.posterior, Mixture.sample),
        *(VQVAE.encode, VQVAE.decode, VQVAE.lookup, VQVAE.represent),
        *(UncachedPrior.log_prob, UncachedPrior.sample, PatchGAN.forward),
        *(FeatureNet.features, FeatureNet.forward),
        *(joint.log_prob, joint.total_log_prob, joint.sample, joint.draw),
    ]
    for edge in edges:
        annotations = inspect.get_annotations(inspect.unwrap(edge))
        assert "return" in annotations
        assert not any("Tensor" in str(annotation) for annotation in annotations.values()), edge


def test_outside_the_suite_nothing_is_checked():
    program = (
        "import sys, torch; from ral_env.nets import PixelCNN, PixelCNNConfig\n"
        "net = PixelCNN(PixelCNNConfig((4, 4), 5, 8, 8, 2, output_layers=1))\n"
        "assert not hasattr(PixelCNN.logits, '__wrapped__') and 'beartype' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
