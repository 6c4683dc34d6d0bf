"""What tests of the page share: a server in a thread, and what a tab shows.

``CHROMIUM`` names the browser where it is not found by itself; ``AXE`` names axe-core's
``axe.min.js`` (``npm pack axe-core``), with which accessibility is checked.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.viewer import chromium
from ral_env import bundle

uvicorn = pytest.importorskip("uvicorn", reason="the extra viewer is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from ral_env.viewer.command import listening  # noqa: E402
from ral_env.viewer.server import app  # noqa: E402
from ral_env.viewer.sources import Library  # noqa: E402

CHROMIUM = chromium()
AXE = Path(os.environ.get("AXE", "axe.min.js"))
PATIENCE = 120_000  # milliseconds: machines that run tests are busy


class Served:
    """A server in a thread.

    Attributes:
        address: what the page's address begins with.
        connections: those that browsers hold open.
    """

    def __init__(self, library: Library):
        self._listener = listening("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        config = uvicorn.Config(app(library, ["127.0.0.1"]), log_level="warning")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    @property
    def connections(self) -> set[Any]:
        return self._server.server_state.connections

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


PIXELS = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [...data].filter((_, i) => i % 4 < 3);
}"""


def shown(page: Any, picture: int = 0) -> np.ndarray:
    """The pixels of a picture, as its canvas has them."""
    canvas = page.locator("figure .frame canvas:not(.tints)").nth(picture)
    side = int(canvas.get_attribute("width"))
    return np.array(canvas.evaluate(PIXELS), np.uint8).reshape(side, side, 3)


TINTS = """tints => [...Array(64).keys()].map((cell) => {
  const at = (index) => (index + 0.5) * tints.width / 8;
  const pen = tints.getContext("2d");
  return [...pen.getImageData(at(cell % 8), at(Math.floor(cell / 8)), 1, 1).data];
})"""


def tints(page: Any) -> np.ndarray:
    """Red, green, blue and opacity in the middle of each cell of the first picture: (64, 4)."""
    return np.array(page.locator("canvas.tints").first.evaluate(TINTS))


def saved(page: Any, button: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return Path(download.value.path()).read_bytes()


def decoded(path: Path, codes: np.ndarray) -> np.ndarray:
    made = bundle.load(path)
    with torch.no_grad():
        image = made.vqvae.decode(made.layout.as_grids(codes[None]))[0]
    return ((image + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def step(page: Any) -> int:
    return int(page.get_by_role("slider", name="Step").input_value())


def address(page: Any) -> str:
    """As the page has it: what playwright knows of it is a moment old, until it is asked again."""
    return page.evaluate("location.href")


def until(true: Callable[[], Any]) -> None:
    """Wait for what a page or the server comes to by itself."""
    end = time.monotonic() + PATIENCE / 1000
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
