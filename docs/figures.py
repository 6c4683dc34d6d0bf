"""Draw the pictures of the concept pages: ``python docs/figures.py [FOLDER] [NAME ...]``.

Each is drawn from the bundles that ship, with fixed seeds; none is sketched. Those that measure
(``exposure``, ``divergences``, ``resampling``) print what they measured, which the pages quote.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

import style
from style import BLUE, GREY, INK, LINES, ORANGE, RED

from agents.evaluation import metrics
from agents.evaluation.evaluator import Evaluator, TemperedPrior
from agents.training.discriminator import auc
from pretrain.data.face_painter import faces
from ral_env import bundle as bundles
from ral_env.bundle import Bundle
from ral_env.film import play
from ral_env.nets import joint, represent
from ral_env.nets.resample import resample, score
from ral_env.picture import to_bytes
from ral_env.starts import STARTS

FOLDER = Path(__file__).parent / "figures"
EPISODE = 5  # the seed of the episode that several pictures show


def decoded(bundle: Bundle, grids: Any) -> np.ndarray:
    """Codes, a grid (N, h, w) a level, as images uint8 (N, H, W, 3)."""
    with torch.no_grad():
        return to_bytes(bundle.vqvae.decode([torch.as_tensor(g).long() for g in grids])).transpose(
            0, 2, 3, 1
        )


def painted_episode(**options: Any) -> tuple[Any, list[int]]:
    """A fresh episode of ``RALFaces32-v0``, and what its prior writes into it."""
    env: Any = gym.make("ral_env:RALFaces32-v0", render_mode="rgb_array", **options)
    actions = play(env, seed=EPISODE, temperature=0.85)
    env.reset(seed=EPISODE)
    return env, actions


def codes() -> Any:
    """An image, its codes, what they decode to, and what one of them is worth."""
    bundle = bundles.load("faces32")
    light = style.lightness(bundle)
    image = faces(9, 32)[0][8]
    with torch.no_grad():
        grid = bundle.vqvae.encode(torch.from_numpy(image)[None] / 127.5 - 1)[0][0].numpy()
    other = grid.copy()
    other[2, 4] = next(code for code in grid.flatten() if code != grid[2, 4])
    before, after = decoded(bundle, [np.stack([grid, other])])
    made, axes = style.figure(2.1, 5)
    axes = axes[0]
    style.draw_picture(axes[0], image.transpose(1, 2, 0), "32x32 pixels")
    style.draw_canvas(axes[1], grid, bundle, light, last=(2, 4))
    axes[1].set_title("8x8 codes of 64")
    style.draw_picture(axes[2], before, "decoded")
    style.draw_picture(axes[3], after, "one code changed")
    change = np.abs(after.astype(float) - before).mean(-1)
    style.draw_picture(axes[4], change, "pixels that moved", cmap="Greys", vmin=0, vmax=60)
    for name, axis in (("encode", axes[0]), ("decode", axes[1])):
        axis.annotate(f"{name} →", (1.0, -0.09), xycoords="axes fraction", ha="center", color=GREY)
    moved = np.argwhere(change > 2)
    print(f"codes: pixels that move by more than 2 of 255: {len(moved)} of 1,024, "
          f"rows {moved[:, 0].min()} to {moved[:, 0].max()}")  # fmt: skip
    return made


def canvas() -> Any:
    """An episode: the canvas after some of its steps, the picture, and the observation."""
    env, actions = painted_episode()
    bundle, layout = env.unwrapped.bundle, env.unwrapped.layout
    light = style.lightness(bundle)
    shown = (0, 1, 20, 40, 64)
    made, axes = style.figure(3.7, len(shown), 2, height_ratios=(1, 1))
    observation, _ = env.reset(seed=EPISODE)
    for step in range(layout.length + 1):
        if step:
            observation, reward, *_ = env.step(actions[step - 1])
        if step not in shown:
            continue
        column = shown.index(step)
        last = divmod(step - 1, 8) if step else None
        style.draw_canvas(axes[0, column], observation.reshape(8, 8), bundle, light, last=last)
        title = {0: "reset", 64: "step 64: the end"}.get(step, f"step {step}")
        axes[0, column].set_title(title)
        style.draw_picture(axes[1, column], env.render())
        if step in (1, 64):
            said = f"reward {0 if step == 1 else reward:+.2f}"
            axes[1, column].set_xlabel(said, color=INK)
    axes[1, 0].set_xlabel("env.render()", color=GREY)
    return made


def levels() -> Any:
    """Two levels, the order in which they are written, and what lies beneath a top code."""
    bundle = bundles.load("oracle-two-level")
    layout, light = bundle.layout, style.lightness(bundle)
    row = np.asarray(bundle.split("test")[3:4]).astype(np.int64)
    top, bottom = (grid[0] for grid in layout.unflatten(row))
    made, axes = style.figure(2.9, 4, width_ratios=(1, 1, 1, 1.05))
    axes = axes[0]
    style.draw_canvas(axes[0], top, bundle, light, last=(2, 3))
    axes[0].set_title("first: top, 8x8")
    style.draw_canvas(axes[1], bottom, bundle, light, numbers=False)
    axes[1].add_patch(style.Rectangle((6, 4), 2, 2, fill=False, edgecolor=RED, linewidth=2))
    axes[1].set_title("then: bottom, 16x16")
    style.draw_picture(
        axes[2], decoded(bundle, [g[None] for g in (top, bottom)])[0], "64x64 pixels"
    )
    axes = axes[3]
    order = np.arange(layout.length)
    band = layout.bands
    for number, (part, name) in enumerate(zip(layout.slices, ("top", "bottom"), strict=True)):
        look = LINES[number] | {"linestyle": "none", "markersize": 1.6}
        axes.plot(order[part], band[part] + 1, label=name, **look)
    axes.set(xlabel="place in the flat canvas", ylabel="row of the coarsest grid", yticks=[1, 4, 8])
    axes.set_title("320 steps")
    axes.legend(loc="lower right", markerscale=3)
    return made


def starts() -> Any:
    """What the canvas is when an episode begins, and what it is when it ends."""
    made, axes = style.figure(4.0, 4, 2)
    options = ({"start": "full"}, {"start": "continue", "rows": 3}, {"start": "scratch", "rows": 5},
               {"start": "partial"})  # fmt: skip
    env: Any = gym.make("ral_env:RALFaces32-v0", render_mode="rgb_array", overlay="real")
    bundle, layout = env.unwrapped.bundle, env.unwrapped.layout
    light = style.lightness(bundle)
    for column, option in enumerate(options):
        observation, _ = env.reset(seed=EPISODE, options=option)
        while option["start"] == "partial" and not (observation[40:] < layout.empty).any():
            observation, _ = env.reset(options=option)  # until six rows or more are given
        given = (observation < layout.empty).reshape(8, 8)
        axis = axes[0, column]
        style.draw_canvas(axis, observation.reshape(8, 8), bundle, light, real=given, size=5)
        axis.set_title(", ".join(map(str, option.values())) + (" rows" if "rows" in option else ""))
        written = torch.from_numpy(observation.astype(np.int64))[None]
        rows = int(layout.heights(observation))
        noise = torch.Generator().manual_seed(1)
        grids = joint.sample(bundle.priors, layout.unflatten(written, rows), 0.85, noise)
        cells = torch.cat([g.flatten(1) for g in grids], 1)[0].numpy()
        for cell in np.flatnonzero(observation == layout.empty):
            _, reward, _, _, info = env.step(cells[cell])
        style.draw_picture(axes[1, column], env.render())
        axes[1, column].set_xlabel(f"{len(info['step_rewards'])} steps, reward {reward:+.2f}")
        if option["start"] == "partial":
            axis.set_title(f"partial: {STARTS[info['start']]}, {info['rows']}")
    return made


def rewards() -> Any:
    """One canvas, its score map, and what each of the three rewards pays at which step."""
    made, axes = style.figure(2.6, 4, width_ratios=(0.95, 1.15, 1.5, 1.5))
    axes = axes[0]
    paid = {}
    for reward in ("single", "intermediate", "rowwise"):
        env, actions = painted_episode(reward=reward)
        steps = [env.step(action) for action in actions]
        paid[reward] = np.array([step[1] for step in steps])
        info = steps[-1][4]
        if reward == "intermediate":
            credited = info["step_rewards"]
        assert np.isclose(info["step_rewards"].sum(), paid[reward].sum(), atol=1e-4)
    style.draw_picture(axes[0], env.render(), "a sample")
    scores = np.asarray(info["score_map"])
    style.draw_picture(axes[1], scores, "its score map", cmap="cividis", vmin=-1, vmax=1)
    for (row, column), value in np.ndenumerate(scores):
        ink = "white" if value < 0 else INK
        axes[1].text(column, row, f"{value:+.1f}", ha="center", va="center", fontsize=7, color=ink)
    style.draw_bars(axes[2], credited, BLUE)
    axes[2].set(xlabel="step", title="intermediate: info")
    axes[2].text(0.02, 0.95, f"the last step pays their sum, {paid['intermediate'][-1]:+.2f}",
                 transform=axes[2].transAxes, fontsize=7.5, va="top")  # fmt: skip
    style.draw_bars(axes[3], paid["rowwise"], ORANGE)
    axes[3].set(xlabel="step", title="rowwise: rewards")
    axes[2].set_ylim(-1.05, 1.45)
    axes[2].set_yticks([-1, 0, 1])
    axes[1].set_xlabel(f"single pays its mean, {paid['single'][-1]:+.2f}", fontsize=8)
    print("rewards:", {name: float(values.sum()) for name, values in paid.items()})
    return made


def discriminator() -> Any:
    """What a score looks at, and how real canvases and samples score by both discriminators."""
    bundle = bundles.load("mnist")
    real = [torch.from_numpy(g.astype(np.int64))
            for g in bundle.layout.unflatten(np.asarray(bundle.split("test")[:1000]))]  # fmt: skip
    fake = joint.draw(bundle.priors, 1000, torch.Generator().manual_seed(0))
    made, axes = style.figure(2.7, 4, width_ratios=(0.9, 0.9, 1.5, 1.5))
    axes = axes[0]
    net, _ = bundle.discriminator_for("image")
    image = represent(bundle.vqvae, [g[:1] for g in real], "image").detach().requires_grad_()
    scores = net(image)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    assert image.grad is not None
    seen = image.grad[0].abs().sum(0).numpy()
    style.draw_picture(axes[0], to_bytes(image.detach())[0].transpose(1, 2, 0), "a real digit")
    style.draw_picture(axes[1], seen / seen.max(), "one score heeds", cmap="Greys", vmin=0, vmax=1)
    axes[1].set_xlabel(f"of a map of {scores.shape[2]}x{scores.shape[3]}", fontsize=8)
    for axis, kind in zip(axes[2:], ("image", "codes"), strict=True):
        net, scale = bundle.discriminator_for(kind)
        found = [score(net, bundle.vqvae, grids, kind) / scale for grids in (real, fake)]
        bins = np.linspace(*np.quantile(torch.cat(found).numpy(), (0.002, 0.998)), 32)
        for values, name, color, hatch in zip(found, ("real", "samples"), (BLUE, ORANGE),
                                              (None, "////"), strict=True):  # fmt: skip
            axis.hist(values.numpy(), bins, alpha=0.65, label=name, color=color, hatch=hatch,
                      edgecolor="white", linewidth=0.3)  # fmt: skip
        area = auc(*found)
        axis.set(title=f"sees {'images' if kind == 'image' else 'vectors'}: AUC {area:.2f}",
                 xlabel="score", yticks=[])  # fmt: skip
        print(f"discriminator: {kind}, AUC {area:.3f}")
    axes[2].legend(loc="upper left", fontsize=8)
    return made


def exposure() -> Any:
    """Where the prior departs from the oracle, on real canvases and on its own."""
    bundle = bundles.load("oracle")
    noise = torch.Generator().manual_seed(0)
    own = joint.draw(bundle.priors, 2000, noise)
    real = joint.draw(bundle.oracles, 2000, noise)
    lines = {}
    for name, grids, sign in (("on the oracle's canvases: forward", real, -1),
                              ("on its own canvases: reverse", own, 1)):  # fmt: skip
        with torch.no_grad():
            oracle, prior = (
                torch.cat([nets[0].log_prob(part) for part in grids[0].split(250)])
                for nets in (bundle.oracles, bundle.priors)
            )
        lines[name] = sign * (prior - oracle).flatten(1).numpy()
    made, axes = style.figure(3.0, 2, width_ratios=(1.5, 1))
    axes = axes[0]
    for (name, excess), look in zip(lines.items(), LINES, strict=False):
        rows = excess.reshape(len(excess), 8, 8).sum(2)
        error = rows.std(0, ddof=1) / len(rows) ** 0.5
        axes[0].errorbar(np.arange(1, 9), rows.mean(0), 2 * error, label=name, capsize=2, **look)
        total = excess.sum(1)
        print(f"exposure: {name} {total.mean():.2f} ± {total.std() / len(total) ** 0.5:.2f}, "
              f"rows {rows.mean(0).round(2).tolist()}")  # fmt: skip
    axes[0].set(xlabel="row of the canvas", ylabel="nats more than the oracle", ylim=(0, None))
    axes[0].set_title("what a row costs")
    axes[0].legend()
    worst = lines["on its own canvases: reverse"].sum(1).argsort()[::-1][:4].copy()
    best = [0, 1, 2, 3]
    sheet = np.concatenate([
        np.concatenate(list(decoded(bundle, [grids[0][list(rows)]])), 1)
        for grids, rows in ((real, best), (own, worst))])  # fmt: skip
    style.draw_picture(axes[1], sheet, "canvases of one tint each...")
    axes[1].set_xlabel("...and of the prior's, those that departed most")
    return made


def divergences() -> Any:
    """Forward and reverse KL: two fits by hand, and the shipped prior at other temperatures."""
    x = np.linspace(-6, 6, 601)

    def bell(mean: float, width: float) -> np.ndarray:
        made = np.exp(-0.5 * ((x - mean) / width) ** 2)
        return made / made.sum()

    truth = (0.6 * bell(-2.2, 0.7) + 0.4 * bell(2.2, 0.7)) * (1 - 1e-9) + 1e-9 / len(x)
    fits = [bell(mean, width) + 1e-300 for mean in np.arange(-3, 3.01, 0.1)
            for width in np.arange(0.4, 3.6, 0.1)]  # fmt: skip
    forward = min(fits, key=lambda q: float((truth * np.log(truth / q)).sum()))
    reverse = min(fits, key=lambda q: float((q * np.log(q / truth)).sum()))
    made, axes = style.figure(3.0, 2)
    axes = axes[0]
    axes[0].fill_between(x, truth, color=style.PALE, label="the truth p")
    for q, name, look in ((forward, "least forward KL(p, q): covers", LINES[0]),
                          (reverse, "least reverse KL(q, p): chooses", LINES[1])):  # fmt: skip
        axes[0].plot(x, q, label=name, **(look | {"marker": ""}))
    axes[0].set(yticks=[], xticks=[], title="one bell for two hills", ylim=(0, 0.017))
    axes[0].legend(loc="upper center", fontsize=8)
    bundle = bundles.load("oracle")
    evaluator = Evaluator(bundle)
    temperatures = (0.7, 0.8, 0.9, 1.0, 1.1)
    found: dict[str, list[float]] = {
        "forward KL": [],
        "reverse KL": [],
        "NLL_oracle - entropy of p": [],
    }
    for t in temperatures:
        prior = TemperedPrior(bundle.priors, t)
        own = evaluator.sample(prior, 1000, seed=0)
        nll = -TemperedPrior(bundle.oracles).log_prob(own).mean().item()
        found["forward KL"].append(evaluator.forward_nll(prior) - evaluator.oracle_entropy)
        found["reverse KL"].append(nll + prior.log_prob(own).mean().item())
        found["NLL_oracle - entropy of p"].append(nll - evaluator.oracle_entropy)
    for (name, values), look in zip(found.items(), LINES, strict=False):
        axes[1].plot(temperatures, values, label=name, **look)
        print(f"divergences: {name}", [round(v, 1) for v in values])
    axes[1].axhline(0, color=GREY, linewidth=0.8)
    axes[1].set(xlabel="temperature", ylabel="nats per canvas", title="the oracle's prior, cooled")
    axes[1].legend(fontsize=8)
    return made


def resampling() -> Any:
    """One of K candidates: how near it comes, and what it costs."""
    bundle = bundles.load("digits")
    evaluator = Evaluator(bundle)
    name = next(iter(bundle.feature_nets))
    tries = (1, 2, 4, 8, 16)
    distances: dict[int, list[float]] = {k: [] for k in tries}
    seconds = {}
    for seed in range(3):
        noise = torch.Generator().manual_seed(seed)
        for k in tries:
            start = time.perf_counter()
            grids = joint.draw(bundle.priors, 1000 * k, noise)
            scores = score(bundle.discriminator, bundle.vqvae, grids, bundle.discriminator_input)
            kept = resample(grids, scores, k, noise)
            seconds[k] = time.perf_counter() - start
            distance = metrics.frechet_distance(
                evaluator.held_out_features[name], evaluator.features(kept)[name]
            )
            distances[k].append(distance)
    train = bundle.layout.as_grids(bundle.split("train")[:1000])
    floor = metrics.frechet_distance(
        evaluator.held_out_features[name], evaluator.features(train)[name]
    )
    made, axes = style.figure(2.9, 2)
    axes = axes[0]
    found = np.array([distances[k] for k in tries])
    for seed in range(3):
        axes[0].plot(tries, found[:, seed], color=GREY, linewidth=0.7)
    axes[0].plot(tries, found.mean(1), label="1 of K, mean of 3 seeds", **LINES[0])
    axes[0].axhline(floor, color=INK, linestyle=":", label="1,000 real digits")
    axes[0].set_xscale("log", base=2)
    axes[0].set(xticks=tries, xticklabels=tries, xlabel="candidates K", ylabel="Fréchet distance",
                ylim=(0, None), title="nearer to real digits...")  # fmt: skip
    axes[0].legend()
    axes[1].bar(
        range(len(tries)), tries, color=[BLUE, *[ORANGE] * 4], hatch="//", edgecolor="white"
    )
    axes[1].set(xticks=range(len(tries)), xticklabels=tries, xlabel="candidates K",
                ylabel="canvases drawn for one kept", title="...for K times the work")  # fmt: skip
    print("resampling:", {k: (round(float(np.mean(v)), 2), round(seconds[k], 1))
                          for k, v in distances.items()}, f"floor {floor:.2f}")  # fmt: skip
    return made


FIGURES: dict[str, Callable[[], Any]] = {
    made.__name__: made
    for made in (codes, canvas, levels, starts, rewards, discriminator, exposure, divergences,
                 resampling)
}  # fmt: skip


if __name__ == "__main__":
    style.write_asked(FIGURES, FOLDER, sys.argv[1:])
