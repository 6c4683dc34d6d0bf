"""Compiles the sampler beside its source, once for each instruction set, where there is a compiler.

    python ral_env/nets/native/build.py

``hatch_build.py`` does so when the package is built or installed. Only the standard library is
used, and nothing is imported from the package, as neither may be installed then.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
# What torch calls a processor's capability (torch.backends.cpu.get_cpu_capability), and the flags
# for what it then has.
INSTRUCTION_SETS = {
    "AVX512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512",
    "AVX2": "-mavx2 -mfma",
}
FLAGS = "-std=gnu11 -O3 -fno-math-errno -fno-trapping-math -ffp-contract=fast"


def library(instruction_set: str) -> Path:
    """Where the compiled sampler is, if it is; named after its source, so never of another one."""
    sources = sorted(FOLDER.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return FOLDER / f"sampler-{instruction_set.lower()}-{digest[:12]}.so"


def can_compile() -> bool:
    """Whether there is a compiler here, for a machine that the sampler can be compiled for."""
    return bool(_compiler()) and (sys.platform, platform.machine()) == ("linux", "x86_64")


def _compiler() -> str | None:
    """The C compiler of the environment variable ``CC``, or of the usual names."""
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    return next((name for name in names if name and shutil.which(name)), None)


def build() -> list[Path]:
    """Compile the sampler; what cannot be compiled here is left out. Returns the libraries."""
    for old in FOLDER.glob("*.so"):
        old.unlink()
    built = []
    for instruction_set, flags in INSTRUCTION_SETS.items() if can_compile() else ():
        path = library(instruction_set)
        fresh = path.with_suffix(".fresh")
        command = [
            _compiler(),
            *f"{FLAGS} {flags} -shared -fPIC".split(),
            str(FOLDER / "sampler.c"),
        ]
        if subprocess.run([*command, "-o", str(fresh)]).returncode == 0:  # it says why not
            built.append(fresh.replace(path))
    return built


if __name__ == "__main__":
    print("\n".join(map(str, build())) or "nothing was compiled: sampling takes torch")
