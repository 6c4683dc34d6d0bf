"""Lets hatchling compile the sampler into the wheel, or beside its source in a checkout.

Where that cannot be done, the wheel is one of pure Python, and sampling takes torch.
"""

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILD = "ral_env/nets/native/build.py"


class CustomBuildHook(BuildHookInterface):
    """What ``tool.hatch.build.targets.wheel.hooks.custom`` in pyproject.toml names."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the wheel after the platform if anything was; any Python 3 takes it."""
        root = Path(self.root)
        built = runpy.run_path(str(root / BUILD))["build"]()
        if built:
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"
            build_data["artifacts"] += [path.relative_to(root).as_posix() for path in built]
