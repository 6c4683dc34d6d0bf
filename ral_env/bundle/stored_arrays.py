"""The npy files of a bundle: two dimensions of numbers, memory-mapped.

Only what numpy itself writes for such an array is read, and only if the file is as long as its
header says: whatever else a header may hold is never interpreted.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ral_env.bundle.manifest import BundleError

_HEADER = re.compile(
    rb"\{'descr': '([<|][uif][1248])', 'fortran_order': False, "
    rb"'shape': \((\d{1,15}), (\d{1,15})\), \} *\n"
)
_MAGIC = b"\x93NUMPY\x01\x00"


def read_array(file: Path) -> np.ndarray:
    """The array (n, m) in a npy file, memory-mapped and read-only, with one number or more.

    Raises:
        BundleError: if it is no such file, or of another length than its header says.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(len(_MAGIC) + 2)
            header = stream.read(int.from_bytes(start[-2:], "little"))
        found = _HEADER.fullmatch(header)
        if len(start) < len(_MAGIC) + 2 or not start.startswith(_MAGIC) or found is None:
            raise BundleError(file, "is not a readable array of two dimensions")
        dtype, shape = np.dtype(found[1].decode()), (int(found[2]), int(found[3]))
        offset = len(start) + len(header)
        expected = offset + shape[0] * shape[1] * dtype.itemsize
        if size != expected or size == offset:
            raise BundleError(
                file, f"has {size} bytes and no readable array: {dtype} {shape} take {expected}"
            )
        return np.memmap(file, dtype, "r", offset, shape)
    except OSError as error:
        raise BundleError(file, f"cannot be read ({error})") from error
