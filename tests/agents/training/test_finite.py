"""Training that has diverged stops, and what was good before it stays."""

import pytest
import torch
from torch import nn

from agents.training.finite import NotFiniteError, check_losses, naming_last_good, step


def learner(gradient: float, learning_rate: float = 0.1):
    """A net with two weights of 1 and this gradient, and its optimiser."""
    net = nn.Linear(2, 1, bias=False)
    nn.init.ones_(net.weight)
    net.weight.grad = torch.tensor([[0.5, gradient]])
    return net, torch.optim.SGD(net.parameters(), learning_rate)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_step_is_made_along_a_gradient_that_is_not_finite(value):
    net, optimizer = learner(value)
    with pytest.raises(NotFiniteError, match="the policy's gradient is not finite; lower it"):
        step(net, optimizer, "the policy's", "lower it")
    assert torch.equal(net.weight, torch.ones(1, 2))


def test_a_step_to_weights_that_are_not_finite_is_noticed():
    net, optimizer = learner(10.0, learning_rate=1e38)
    with pytest.raises(NotFiniteError, match="the policy's weights are not finite after a step"):
        step(net, optimizer, "the policy's", "lower it")


def test_a_finite_step_is_made():
    net, optimizer = learner(1.0)
    step(net, optimizer, "the policy's", "lower it")
    torch.testing.assert_close(net.weight.detach(), torch.tensor([[0.95, 0.9]]))


def test_losses_that_are_not_finite_are_named_with_their_values():
    losses = {"a": torch.tensor(1.0), "b": torch.tensor(float("nan"))}
    with pytest.raises(NotFiniteError, match="the net's loss is not finite: {'a': 1.0, 'b': nan}"):
        check_losses(losses, "the net's", "look at the data")
    check_losses({"a": torch.tensor(1.0)}, "the net's", "look at the data")


def test_the_error_names_the_last_good_state_where_there_is_one(tmp_path):
    file = tmp_path / "checkpoint.pt"
    for there in (False, True):
        with pytest.raises(NotFiniteError) as error, naming_last_good(file):
            raise NotFiniteError("a loss is not finite")
        assert (str(file) in str(error.value)) == there
        file.touch()
