"""What building does beyond pyproject.toml: the sampler in C, and a README that stands alone.

hatchling calls both hooks. Only the standard library and hatchling itself are used.
"""

import os
import re
import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

BUILD = "ral_env/nets/native/build.py"
VERSION = "ral_env/__init__.py"


class CustomBuildHook(BuildHookInterface):
    """Compiles the sampler into the wheel, or beside its source in a checkout.

    Where that cannot be done, or ``RAL_ENV_PURE=1`` forbids it, the wheel is one of pure Python,
    and sampling takes torch.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the wheel after the platform if anything was; any Python 3 takes it."""
        if os.environ.get("RAL_ENV_PURE") == "1":
            return
        root = Path(self.root)
        built = runpy.run_path(str(root / BUILD))["build"]()
        if built:
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"
            build_data["artifacts"] += [path.relative_to(root).as_posix() for path in built]


class ReadmeHook(MetadataHookInterface):
    """The README as a package index shows it, which has none of the files that it links to."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme``; a build on GitHub knows the repository that links lead to."""
        root = Path(self.root)
        text = (root / "README.md").read_text(encoding="utf-8")
        if repository := os.environ.get("GITHUB_REPOSITORY"):
            server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
            found = re.search(r'^__version__ = "(.*)"$', (root / VERSION).read_text(), re.MULTILINE)
            assert found, f"no version in {VERSION}"
            text = absolute_links(text, f"{server}/{repository}", f"v{found[1]}")
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute_links(text: str, repository: str, tag: str) -> str:
    """Markdown whose relative links lead to a repository's files as they were at a tag.

    Args:
        text: the markdown.
        repository: its address, without a slash at its end.
        tag: of the release.
    """

    def absolute(found: re.Match[str]) -> str:
        kind = "raw" if found["picture"] else "blob"
        return f"{found['picture']}[{found['words']}]({repository}/{kind}/{tag}/{found['path']})"

    return re.sub(
        r"(?P<picture>!?)\[(?P<words>[^]]*)\]\((?!\w+:|#)(?P<path>[^)\s]+)\)", absolute, text
    )
