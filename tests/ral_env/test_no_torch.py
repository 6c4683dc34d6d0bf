"""What an episode is can be said without torch: importing these modules loads none."""

import subprocess
import sys

import pytest

MODULES = [
    "ral_env", "ral_env.tasks", "ral_env.layout", "ral_env.starts", "ral_env.images",
    "ral_env.ranges", "ral_env.migrations", "ral_env.forks", "ral_env.cli", "ral_env.testing",
    "ral_env.bundle",
]  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_importing_it_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
