"""Specs that can be stored: ``env.spec.to_json()``, whatever the environment was made with."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

from ral_env.bundle import Bundle
from ral_env.envs.reward_fn import storable_name


class StorableSpec:
    """Mixin of environments: Gymnasium's ``spec``, whose arguments are such as JSON holds.

    A path is stored as an absolute one, a bundle that was read from a folder as that folder, a
    function as ``"package.module:function"`` where it is found by that. A bundle in memory and a
    function without such a name stay what they are: such a spec makes the environment again, and
    has no JSON.
    """

    _spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """How Gymnasium makes this environment again; None if Gymnasium did not make it."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None:
            arguments = {name: _storable(value) for name, value in spec.kwargs.items()}
            spec = copy.copy(spec)
            spec.kwargs = arguments
        self._spec = spec


def _storable(value: Any) -> Any:
    """An argument of an environment as JSON holds it, if it can."""
    if isinstance(value, Bundle) and value.path is not None:
        value = value.path
    if isinstance(value, os.PathLike):
        return os.path.abspath(value)
    if isinstance(value, torch.device):
        return str(value)
    if callable(value):
        return storable_name(value)
    return value.name.lower() if isinstance(value, AutoresetMode) else value
