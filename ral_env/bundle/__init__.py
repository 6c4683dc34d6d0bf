"""Bundles: everything that an environment is made of, in a folder or in memory.

What reads and writes their nets is loaded when it is first asked for: which bundles there are, and
what they were trained on, can be said without torch.
"""

from typing import TYPE_CHECKING, Any

from ral_env.bundle.limits import SPLITS
from ral_env.bundle.manifest import BundleError
from ral_env.bundle.of_task import (
    choose,
    for_task,
    load_named,
    make_command,
    place,
    trained_on,
)
from ral_env.bundle.packing import RealCodes, codes_dtype
from ral_env.bundle.parts import TUNING, Bundle, StoredFeatures, from_nets
from ral_env.bundle.places import SHIPPED, absolute, find, home, named, names

if TYPE_CHECKING:
    from ral_env.bundle.store import check_place, load, recover, save, size_of, storable

__all__ = [
    "SHIPPED",
    "SPLITS",
    "TUNING",
    "Bundle",
    "BundleError",
    "RealCodes",
    "StoredFeatures",
    "absolute",
    "check_place",
    "choose",
    "codes_dtype",
    "find",
    "for_task",
    "from_nets",
    "home",
    "load",
    "load_named",
    "make_command",
    "named",
    "names",
    "place",
    "recover",
    "save",
    "size_of",
    "storable",
    "trained_on",
]


def __getattr__(name: str) -> Any:
    if name in ("check_place", "load", "recover", "save", "size_of", "storable"):
        from ral_env.bundle import store

        return getattr(store, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
