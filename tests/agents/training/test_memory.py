"""Freed memory is kept where the C library can, and nothing else changes."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from agents.training.memory import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_large_tensor_is_made_again_without_new_pages():
    keep_freed_memory()
    size = 2**24  # 64 MiB, more than glibc keeps by itself
    torch.ones(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert torch.ones(size).sum() == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000  # of 16384
