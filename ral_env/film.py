"""Watch the priors paint images, code by code: ``ral film`` as a GIF, ``ral view --window`` in a
window.
"""

from __future__ import annotations

import io
import itertools
import time
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from PIL import Image

import ral_env  # noqa: F401  registers the ids
from ral_env.files import check_writable, write_bytes
from ral_env.nets import joint
from ral_env.ranges import SEED, check_values
from ral_env.tasks import expect_ours


def play(env: Any, seed: int = 0, temperature: float = 1.0) -> list[int]:
    """Reset an environment and sample, from its bundle's priors, the actions of the whole episode.

    Args:
        env: a :class:`ral_env.envs.single.LatentCanvasEnv`, wrapped or not.
        seed: seed of the episode's start and of the samples.
        temperature: temperature of sampling.

    Returns:
        A code for every EMPTY cell, in the order in which cells are written.
    """
    layout, priors = env.unwrapped.layout, env.unwrapped.bundle.priors
    canvas, _ = env.reset(seed=seed)
    codes = torch.from_numpy(canvas.astype(np.int64))[None]
    rows = int(layout.heights(canvas))
    generator = torch.Generator().manual_seed(seed)
    grids = joint.sample(priors, layout.unflatten(codes, rows), temperature, generator)
    codes[:, layout.head(rows)] = torch.cat([grid.flatten(1) for grid in grids], 1)
    return codes[0, torch.from_numpy(canvas == layout.empty)].tolist()


def frames(env: Any, seed: int = 0, every: int = 1, temperature: float = 1.0) -> list[np.ndarray]:
    """Frames, uint8 (H, W, 3), of one episode that the bundle's priors play.

    Args:
        env: made with ``render_mode="rgb_array"``.
        seed: seed of the episode's start and of the samples.
        every: steps from one frame to the next; the first and the last are always there.
        temperature: temperature of sampling.
    """
    actions = play(env, seed, temperature)
    shown = [env.render()]
    for step, action in enumerate(actions, start=1):
        env.step(action)
        if step % every == 0 or step == len(actions):
            shown.append(env.render())
    return shown


def save(pictures: list[np.ndarray], out: str | Path, size: int, fps: float) -> Path:
    """Write frames as a GIF that loops and rests on the last one for two seconds.

    Args:
        pictures: frames, uint8 (H, W, 3), all of one size.
        out: the file; its folder is made if it is missing.
        size: longer side of the GIF, in pixels.
        fps: frames a second.

    Returns:
        The path of the file.
    """
    path = Path(out)
    check_writable(path)
    write_bytes(path, gif(pictures, size, fps))
    return path


def gif(pictures: list[np.ndarray], size: int, fps: float) -> bytes:
    """The bytes of that GIF; arguments are those of :func:`save`."""
    images = [Image.fromarray(picture) for picture in pictures]
    share = size / max(images[0].size)
    shape = (round(images[0].width * share), round(images[0].height * share))
    resample = Image.Resampling.BOX if share < 1 else Image.Resampling.NEAREST
    images = [
        image.resize(shape, resample).quantize(64, dither=Image.Dither.NONE) for image in images
    ]
    durations = [round(1000 / fps)] * (len(images) - 1) + [2000]
    written = io.BytesIO()
    images[0].save(
        written, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0,
        optimize=True,
    )  # fmt: skip
    return written.getvalue()


def _make(env: str, bundle: str | None, start: str, overlay: str, render_mode: str) -> Any:
    """The environment of a command; an overlay "none" is none."""
    expect_ours(env)
    return gym.make(
        env,
        bundle=bundle,
        start=start,
        overlay=None if overlay == "none" else overlay,
        render_mode=render_mode,
    )


def command(
    env: str = "RALFaces32-v0",
    bundle: str | None = None,
    out: str = "film.gif",
    start: Literal["full", "continue", "scratch", "partial"] = "full",
    overlay: Literal["none", "scores", "real", "both"] = "none",
    length: int = 80,
    size: int = 256,
    fps: float = 12.0,
    temperature: float = 1.0,
    seed: int = 0,
) -> None:
    """Let a bundle's priors paint an image and save the film as an animated GIF.

    Args:
        env: Id of the environment.
        bundle: Name or path of a bundle to run it on instead of the one it names.
        out: Name of the GIF file.
        start: What is on the canvas at the start; docs/environments describes the starts.
        overlay: What tints the frames: "scores" (green is real, red is fake), "real" (rows that
            were given are blue), or "both".
        length: Number of frames, about.
        size: Longer side of the GIF, in pixels.
        fps: Frames a second.
        temperature: Temperature of sampling.
        seed: Seed of the start and of the samples.
    """
    check_values(
        locals(), length="[2, inf)", size="[16, inf)", fps="(0, inf)", temperature="[0, inf)",
        seed=SEED,
    )  # fmt: skip
    if Path(out).is_dir() or Path(out).suffix.lower() != ".gif":
        raise ValueError(f"out={out!r}, expected the name of a GIF file")
    check_writable(Path(out))
    canvas = _make(env, bundle, start, overlay, "rgb_array")
    every = max(1, canvas.unwrapped.layout.length // (length - 1))
    path = save(frames(canvas, seed, every, temperature), out, size, fps)
    print(
        f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB), on {canvas.unwrapped.bundle.dataset}"
    )
    canvas.close()


def watch(
    env: str = "RALFaces32-v0",
    bundle: str | None = None,
    start: Literal["full", "continue", "scratch", "partial"] = "full",
    overlay: Literal["none", "scores", "real", "both"] = "none",
    episodes: int = 0,
    temperature: float = 1.0,
    seed: int = 0,
    pause: float = 1.0,
) -> None:
    """Let a bundle's priors paint images in a window, one after another, until it is closed.

    Args:
        env: Id of the environment.
        bundle: Name or path of a bundle to run it on instead of the one it names.
        start: What is on the canvas at the start; docs/environments describes the starts.
        overlay: What tints the frames: "scores" (green is real, red is fake), "real" (rows that
            were given are blue), or "both".
        episodes: Number of episodes; with 0 they go on until the window is closed.
        temperature: Temperature of sampling.
        seed: Seed of the first episode; the next episode's is one more.
        pause: Seconds that a finished image is shown before the next episode begins.
    """
    check_values(locals(), episodes="[0, inf)", pause="[0, inf)", temperature="[0, inf)", seed=SEED)
    canvas = _make(env, bundle, start, overlay, "human")
    for episode in range(episodes) if episodes else itertools.count():
        reward = 0.0
        for action in play(canvas, seed + episode, temperature):
            _, reward, *_ = canvas.step(action)
            if _asked_to_close():
                canvas.close()
                return
        print(f"seed {seed + episode}: return {reward:+.3f}, 1 is real")
        time.sleep(pause)
    canvas.close()


def _asked_to_close() -> bool:
    import pygame

    return pygame.event.peek(pygame.QUIT)


def window(argv: list[str]) -> None:
    """``ral view --window``, with the arguments beside that."""
    from jsonargparse import auto_cli

    auto_cli(watch, args=argv, prog="ral view --window", as_positional=False)


def main(argv: list[str] | None = None) -> None:
    """``ral film``; ``argv`` None takes the arguments of the process."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral film", as_positional=False)


if __name__ == "__main__":
    main()
