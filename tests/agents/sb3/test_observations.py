"""Steps and episodes as a policy reads them, and refusals of what is neither."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sb3_models import STARTS, canvases, policy_of, raised

from agents.sb3.observations import raise_written, read


@pytest.mark.parametrize(("start", "rows"), STARTS)
def test_a_step_asks_for_its_first_empty_cell(tiny_two, start, rows):
    policy = policy_of(tiny_two)
    first, _ = canvases(policy, start, rows)
    canvas, asked = read(first.to(torch.int16), policy.layout)
    assert torch.equal(canvas, first)
    assert (asked.sum(1) == 1).all()
    assert torch.equal(asked.int().argmax(1), (first == policy.layout.empty).int().argmax(1))


@pytest.mark.parametrize(("start", "rows"), STARTS)
def test_an_episode_asks_for_all_that_it_wrote(tiny_two, start, rows):
    policy = policy_of(tiny_two)
    first, codes = canvases(policy, start, rows)
    written = first == policy.layout.empty
    episodes = raise_written(codes.numpy(), written.numpy(), policy.layout.num_codes)
    assert np.array_equal(episodes, raised(policy, first, codes).numpy())
    canvas, asked = read(torch.from_numpy(episodes).float(), policy.layout)
    assert torch.equal(canvas, codes) and torch.equal(asked, written)


def test_observations_that_are_no_canvases_are_refused(tiny):
    policy = policy_of(tiny)
    first, codes = canvases(policy, "full", 8)
    with pytest.raises(ValueError, match="no cell is EMPTY"):
        policy.predict_values(codes)
    with pytest.raises(ValueError, match="norm_obs"):
        policy.predict_values(first * 0.3)
    with pytest.raises(ValueError, match="hold -1 to"):
        policy.predict_values(first - 17)
    with pytest.raises(ValueError, match="mixed"):
        policy.predict_values(torch.cat([first, raised(policy, first, codes)]))
    with pytest.raises(ValueError, match="no sub-sampling"):
        policy.evaluate_actions(raised(policy, first, codes), codes.flatten()[::2])
