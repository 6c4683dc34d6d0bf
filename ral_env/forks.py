"""Forked processes compute with one of PyTorch's threads, as PyTorch's own data loaders do.

The threads of OpenMP do not survive a fork: a child whose parent has used them waits for them for
ever. Gymnasium's ``AsyncVectorEnv``, and Stable-Baselines3's ``SubprocVecEnv`` where it forks, are
such children. A child that knows better may call ``torch.set_num_threads`` after that; the parent
keeps all its threads.
"""

from __future__ import annotations

import os
import sys


def install() -> None:
    """Give children of this process one thread; and this process, if it is such a child itself.

    It is one where ``multiprocessing`` started it and PyTorch is loaded already, although this
    package is only now. Call it once.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
        os.register_at_fork(after_in_child=_use_one_thread)
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        _use_one_thread()


def _use_one_thread() -> None:
    """Compute with one thread if PyTorch is loaded; it is not loaded for that."""
    set_threads = getattr(sys.modules.get("torch"), "set_num_threads", None)
    if set_threads is not None:  # None too where a fork came in the middle of the import
        set_threads(1)
