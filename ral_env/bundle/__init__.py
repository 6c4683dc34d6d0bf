"""Bundles: everything that an environment is made of, in a folder or in memory."""

from ral_env.bundle.store import (
    SHIPPED,
    SPLITS,
    Bundle,
    BundleError,
    choose,
    codes_dtype,
    find,
    for_task,
    home,
    load,
    make_command,
    names,
    save,
    storable,
)

__all__ = [
    "SHIPPED",
    "SPLITS",
    "Bundle",
    "BundleError",
    "choose",
    "codes_dtype",
    "find",
    "for_task",
    "home",
    "load",
    "make_command",
    "names",
    "save",
    "storable",
]
