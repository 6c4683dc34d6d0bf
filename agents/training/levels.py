"""Which levels' priors learn; the others are left as they are."""

from __future__ import annotations

from ral_env.bundle import Bundle

LEARNING = {"both": slice(None), "top": slice(0, 1), "bottom": slice(1, None)}


def check_levels(levels: str, bundle: Bundle) -> None:
    """Refuse a choice of levels, a key of :data:`LEARNING`, that leaves nothing to learn.

    Raises:
        ValueError: If the bundle has no priors, or only the coarsest level and the others are to
            learn.
    """
    if not bundle.priors:
        raise ValueError("the bundle has no priors, expected one a level: they are what learns")
    if levels == "bottom" and len(bundle.priors) == 1:
        raise ValueError("levels='bottom', but the bundle has one level: expected 'both'")
