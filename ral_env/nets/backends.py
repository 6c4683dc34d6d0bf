"""Which code samples a PixelCNN: what was compiled for this processor, or torch's operations.

Both write the same codes from the same noise, but for codes whose two best are within rounding of
each other. So what is to be repeated exactly, such as a run that goes on, must stay with one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from ral_env.nets import eager, native
from ral_env.nets.cache import Cache
from ral_env.nets.noise import NoiseSource
from ral_env.nets.weights import PixelCNNWeights

Backend = Literal["auto", "native", "eager"]


def sampler(
    backend: Backend, weights: PixelCNNWeights
) -> Callable[[PixelCNNWeights, Tensor, Tensor | None, float, NoiseSource], None]:
    """The function ``sample_empty_`` of :mod:`eager` or :mod:`native` for these weights.

    Args:
        backend: ``native`` for compiled code, ``eager`` for torch's operations, ``auto`` for
            compiled code where it can be had and is the faster one.
        weights: Of the net to sample.

    Raises:
        ValueError: If there is no such backend, or ``native`` cannot be had for these weights.
    """
    if backend not in ("auto", "native", "eager"):
        raise ValueError(f"backend={backend!r}, expected 'auto', 'native' or 'eager'")
    if backend == "auto":
        backend = "native" if native.is_faster(weights) else "eager"
    if backend == "eager":
        return eager.sample_empty_
    if not native.can_sample(weights):
        raise ValueError(
            "backend='native' samples float32 nets on a CPU with AVX2 where a C compiler was found "
            "when ral-env was installed, which is not so here: expected backend='auto' or 'eager'"
        )
    return native.sample_empty_


def steps(
    backend: Backend, weights: PixelCNNWeights, batch: int, context: Tensor | None
) -> Cache | native.Steps:
    """What evaluates such a net cell by cell, for canvases that someone else writes.

    Args:
        backend: As of :func:`sampler`.
        weights: Of the net; it must not change while what is returned is in use.
        batch: Number of canvases.
        context: What :meth:`PixelCNN.context` returned, for a conditional net.

    Raises:
        ValueError: As of :func:`sampler`.
    """
    compiled = sampler(backend, weights) is native.sample_empty_
    return (native.Steps if compiled else Cache)(weights, batch, context)


def choose(nets: nn.Module, backend: Backend) -> None:
    """Set the backend of all PixelCNNs in ``nets``."""
    for net in _with_a_backend(nets):
        net.backend = backend


def chosen(nets: nn.Module) -> Backend:
    """``native`` if any PixelCNN in ``nets`` is sampled by compiled code here, else ``eager``."""
    found = (sampler(net.backend, net.weights()) for net in _with_a_backend(nets))
    return "native" if native.sample_empty_ in found else "eager"


def go_on_with(nets: nn.Module, backend: Backend) -> None:
    """Set the backend that a run had before it was cut; warn where it cannot be had here."""
    if backend == "native" and chosen(nets) != "native":
        warnings.warn(
            "the run sampled by compiled code, which cannot be had here (see ral_env/nets/native): "
            "it goes on with torch's operations, and not to the bit",
            stacklevel=2,
        )
    else:
        choose(nets, backend)


def _with_a_backend(nets: nn.Module) -> list[Any]:
    return [net for net in nets.modules() if hasattr(net, "backend")]
