"""Feature nets: views, the loss without labels, and whether distances tell good from bad."""

import dataclasses

import pytest
import torch
from degraded import NOISE, distances

from pretrain import data
from pretrain.configs import SelfSupervision
from pretrain.pictures import Pictures, pool_for
from pretrain.self_supervision import fit_views, vicreg_loss, view
from ral_env import bundle
from ral_env.nets import FeatureNet, FeatureNetConfig

STILL = SelfSupervision(shift=0, scale=0, contrast=0, brightness=0, colour=0)


def assert_in_order(found):
    """More noise is further away, and whatever is done to real canvases makes them worse."""
    noise = [found[f"{share} noise"] for share in NOISE]
    assert 0 < noise[0] < noise[1] < noise[2], found
    assert min(found["noise"], found["blur"], found["half-swapped"]) > found["real"], found
    assert found["mode"] > found["any half"], found


def test_a_net_that_learns_for_seconds_without_labels_tells_images_apart():
    made = bundle.load("faces32")
    images = data.load("faces", 32, count=600)
    train, validation = (
        Pictures.of(made.vqvae, images.part(name), 1) for name in ("train", "validation")
    )
    _, figures = fit_views(SelfSupervision(steps=40, batch=48), train, validation)
    assert figures["retrieval"] > 0.5 and figures["effective_rank"] > 2


@pytest.mark.parametrize("net", ["labels", "selfsupervised"])
@pytest.mark.parametrize("name", ["faces32", "mnist"])
def test_distances_rank_what_is_worse_than_real(name, net):
    made = bundle.load(name)
    assert_in_order(distances(made, made.feature_nets[net], most=1000))


@pytest.mark.expensive
@pytest.mark.parametrize("name", sorted(path.name for path in bundle.SHIPPED.iterdir()))
def test_distances_of_every_shipped_bundle_rank_what_is_worse_than_real(name):
    made = bundle.load(name)
    if not made.feature_nets:
        pytest.skip(f"{name} was made without feature nets")
    for net in made.feature_nets.values():
        assert_in_order(distances(made, net))


def test_a_view_moves_by_whole_pixels_and_every_second_one_is_scaled():
    images = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(view(images, STILL, generator), images)
    moved = view(images, dataclasses.replace(STILL, shift=0.15), generator)
    padded = torch.nn.functional.pad(images, (2,) * 4, mode="replicate")
    candidates = torch.stack(
        [padded[..., y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
    )
    errors = (candidates - moved).abs().amax((2, 3, 4))
    assert errors.amin(0).max() < 1e-4, "each view is one of the moved images"
    assert len(errors.argmin(0).unique()) > 10
    scaled = view(images, dataclasses.replace(STILL, scale=0.3), generator)
    changed = (scaled - images).abs().amax((1, 2, 3)) > 1e-3
    assert changed.tolist() == [False, True] * 32
    coloured = view(images, dataclasses.replace(STILL, contrast=0.2, colour=0.1), generator)
    assert coloured.abs().max() <= 1 and not torch.equal(coloured, images)


def test_vicregs_terms_are_those_of_the_paper():
    a, b = torch.randn(2, 40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    settings = SelfSupervision(invariance=2, variance=3, covariance=4)
    found = vicreg_loss(a, b, settings)
    variance = [(1 - (some.var(0) + 1e-4).sqrt()).clamp(min=0).mean() for some in (a, b)]
    covariance = []
    for some in (a, b):
        matrix = torch.cov(some.T)
        covariance.append((matrix - matrix.diag().diag()).square().sum() / 5)
    expected = {
        "invariance": 2 * (a - b).square().mean(),
        "variance": 3 * (variance[0] + variance[1]) / 2,
        "covariance": 4 * (covariance[0] + covariance[1]),
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    collapsed = torch.zeros(40, 5)
    terms = vicreg_loss(collapsed, collapsed, settings)
    assert terms["variance"] == pytest.approx(3 * (1 - 1e-2)), "what keeps features from collapsing"


def test_large_images_are_averaged_before_a_feature_net_sees_them():
    assert [pool_for(size) for size in (32, 64, 128, 256, 512)] == [1, 1, 2, 4, 8]
    config = FeatureNetConfig(hidden=4, features=6, outputs=0)
    small, large = FeatureNet(config).eval(), FeatureNet(dataclasses.replace(config, pool=4)).eval()
    large.load_state_dict(small.state_dict())
    images = torch.rand(2, 3, 32, 32)
    enlarged = images.repeat_interleave(4, 2).repeat_interleave(4, 3)
    with torch.no_grad():
        torch.testing.assert_close(large.features(enlarged), small.features(images))
        assert torch.equal(small(images), small.features(images)), "no outputs, no head"


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch", 1), ("steps", 0), ("scale", 1.0), ("shift", -0.1), ("variance", -1.0)],
)
def test_self_supervision_refuses_what_is_out_of_range(field, value):
    with pytest.raises(ValueError, match=f"{field}={value}, expected a number in"):
        SelfSupervision(**{field: value})


def test_self_supervision_refuses_a_net_with_outputs():
    with pytest.raises(ValueError, match="net.outputs=3, expected 0"):
        SelfSupervision(net=FeatureNetConfig(outputs=3))
