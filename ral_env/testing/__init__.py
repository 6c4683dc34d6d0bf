"""What every environment of codes promises, as checks that anyone's can be put to.

An environment of codes is a Gymnasium environment whose ``unwrapped.layout`` is a
:class:`ral_env.layout.CodeLayout`. Its observation is the canvas: a code in every cell that is
written, EMPTY in every cell that is still to be written, OUTSIDE in every cell that the episode
does not have. Its action is the code for the first EMPTY cell, so that an observation alone says
what an action will do.

Check one at once, or let pytest show each promise by itself::

    from ral_env.testing import CHECKS, VECTOR_CHECKS, Case, check_codes_env

    check_codes_env(MyEnv, MyVectorEnv)

    @pytest.mark.parametrize("check", [*CHECKS, *VECTOR_CHECKS])
    def test_my_environment_keeps_its_promises(check):
        check(Case(MyEnv, MyVectorEnv))

A check raises an AssertionError that says what was promised and what happened instead. Numbers that
one canvas and a batch, or steps and ``complete``, both compute may differ by 1e-5 of their size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from ral_env.testing.batch import VECTOR_CHECKS
from ral_env.testing.one_canvas import CHECKS
from ral_env.testing.play import TOLERANCE, Case

__all__ = ["CHECKS", "TOLERANCE", "VECTOR_CHECKS", "Case", "check_codes_env"]


def check_codes_env(
    make: Callable[[], gym.Env[Any, Any]],
    make_vec: Callable[[int], VectorEnv] | None = None,
    *,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Put an environment of codes to all checks; arguments are those of :class:`Case`.

    Without ``make_vec``, :data:`VECTOR_CHECKS` are left out.

    Raises:
        AssertionError: names the first promise that is broken, and what happened instead.
    """
    case = Case(make, make_vec, seed, options or {})
    for check in (*CHECKS, *(VECTOR_CHECKS if make_vec else ())):
        try:
            check(case)
        except AssertionError as error:
            raise AssertionError(f"{check.__name__.replace('_', ' ')}: {error}") from error
