"""Write a page for every environment id: ``python docs/make_pages.py [FOLDER]``.

Pages are made of the table of ids, the recipes, the reference scores, and the manifests of the
bundles that ship; the page of the table, ``README.md``, has what all ids share, which is the
docstring of ``LatentCanvasEnv``. No net is loaded. A test compares them with the committed ones.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.evaluation.evaluator import headings
from benchmarks.scores import columns as in_order
from pretrain.recipe_table import MINUTES
from pretrain.recipes import RECIPES, Recipe
from ral_env import bundle, reference
from ral_env.envs.single import LatentCanvasEnv
from ral_env.layout import CodeLayout
from ral_env.tables import markdown_table
from ral_env.tasks import TASKS, Task

NOTE = "<!-- Made by docs/make_pages.py: change what it reads, then run it again. -->"
SECTIONS = ("Rewards", "Starting state", "Episode end", "Arguments")  # of the docstring
SAMPLES = Path(__file__).parent / "samples"  # sheets that have been drawn, ID.png
CLAIMS = Path(__file__).parent / "claims"  # what docs/claims.py has drawn of reference scores
HOME = "~/.cache/ral_env/bundles"  # what pages call bundle.home()
# Said elsewhere on the page.
KNOWN = ("image_size", "grid", "condition_grid", "num_codes", "in_channels", "levels")


def sections() -> dict[str, str]:
    """The docstring's ``## `` sections as markdown, by their titles."""
    parts = re.split(r"^## (.+)\n", inspect.getdoc(LatentCanvasEnv) or "", flags=re.MULTILINE)
    texts = (text.strip().replace("``", "`") for text in parts[2::2])
    return dict(zip(parts[1::2], texts, strict=True))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(re.sub(" +", " ", f"| {' | '.join(cells)} |") for cells in lines)


def networks(recipe: Recipe) -> str:
    """A recipe's nets and how long they learn, as a table; the priors of its base learn nothing."""

    def row(name: str, config: Any, batch: int | str, steps: int | str) -> tuple[str, ...]:
        sizes = {key: value for key, value in dataclasses.asdict(config).items() if value}
        if sizes.get("enlarge") == 1:  # it enlarges nothing
            del sizes["enlarge"]
        shown = ", ".join(f"{key}={value}" for key, value in sizes.items() if key not in KNOWN)
        learnt = (value if isinstance(value, str) else f"{value:,}" for value in (batch, steps))
        return name, f"`{shown}`", *learnt

    rows = [row("VQ-VAE", recipe.vqvae, recipe.vqvae_training.batch, recipe.vqvae_training.steps)]
    for kind, configs, trainings in (
        ("oracle", recipe.oracles, recipe.oracle_trainings),
        ("prior", recipe.priors, recipe.prior_trainings),
    ):
        for config, training in zip(configs, trainings, strict=True):
            name = f"{kind} over {config.grid[0]}x{config.grid[1]}"
            if config.condition_grid:
                name += f", given {config.condition_grid[0]}x{config.condition_grid[1]}"
            learnt = (training.batch, training.steps)
            if recipe.base is not None:
                learnt = ("", f"none: `{recipe.base}`'s")
            rows.append(row(name, config, *learnt))
    sees = {"image": "images", "codes": "codebook vectors"}[recipe.discriminator_input]
    rows.append(
        row(
            f"discriminator of {sees}",
            recipe.discriminator,
            recipe.discriminator_batch,
            recipe.discriminator_steps,
        )
    )
    return table(("net", "sizes", "batch", "steps, at most"), rows)


def manifest_figures(name: str) -> str:
    """What the manifest of a bundle that ships says of its nets, as a table."""
    found = bundle.load(bundle.SHIPPED / name, verify=False)
    metrics: dict[str, Any] = found.manifest["metrics"]
    codebook, priors = metrics["codebook"], metrics.get("priors") or metrics["prior"]
    suffixes = [f"_{level}" if level else "" for level in range(len(found.layout.levels))]
    codes = [f"{codebook[f'perplexity{suffix}']:.0f} of {found.layout.num_codes}"
             for suffix in suffixes]  # fmt: skip
    kinds = metrics.get("discriminators") or {found.discriminator_input: metrics["discriminator"]}
    rows = [
        ("edition", f"`{found.edition}`"),
        ("`reconstruction`, mean squared error of images in [-1, 1]",
         f"{metrics['reconstruction']:.4f}"),
        ("`perplexity` of the codebook, each level", ", ".join(codes)),
        ("`forward_nll` of the prior, test canvases, nats", f"{priors['test_nats']:.1f}"),
        ("its nats per code, each level, validation",
         _decimals(priors["validation_nats_per_code"])),
        ("the same by frequencies alone", _decimals(priors["unigram_nats_per_code"])),
    ]  # fmt: skip
    if "oracle" in metrics:
        rows.append(("entropy of the truth, nats", f"{metrics['oracle']['entropy']:.1f}"))
    for kind, figures in sorted(kinds.items()):
        sees = {"image": "images", "codes": "codebook vectors"}[kind]
        rows.append((f"AUC of the discriminator of {sees}, held out", f"{figures['auc']:.2f}"))
    return table(("of the shipped bundle", ""), rows)


def _decimals(values: float | Sequence[float]) -> str:
    """Numbers, one a level, with two decimals."""
    return ", ".join(f"{value:.2f}" for value in np.atleast_1d(values))


def samples(task: Task) -> list[str]:
    """The sheet of an id's samples, where one has been drawn, and the command that drew it."""
    name = f"{task.id}.png"
    if not (SAMPLES / name).exists():
        return []
    prior = f"the stand-in's prior (`{task.stand_in}`)" if task.stand_in else "the MLE prior"
    return [
        f"![samples](../samples/{name})",
        f"*64 samples of {prior} at temperature 1, none left out: "
        f"`ral sample --env {task.id} --count 64 --seed 0 --out {name}`.*",
    ]


def chart(task: Task) -> list[str]:
    """The picture of an id's reference scores, where they have distances."""
    name = f"{task.id}.png"
    if not (CLAIMS / name).exists():
        return []
    return [
        f"![reference scores](../claims/{name})",
        "*How near the prior comes to real canvases, and how many kinds of them it covers, between "
        "random codes and real training canvases: the reference scores below "
        f"(`python docs/claims.py {task.id}`).*",
    ]


def reference_scores(task: Task) -> list[str]:
    """What is reached in an id, where that has been measured."""
    measured = reference.scores().get(task.id)
    if measured is None:
        return []
    rows = [{"row": label} | row for label, row in measured["rows"].items()]
    columns = in_order({name: None for row in rows for name in row})
    threshold = reference.reward_threshold(measured)
    returns = {label: row["return"] for label, row in measured["rows"].items()}
    note = ""
    if returns["random codes"] > returns[reference.REAL]:
        note = (
            " Here random codes get more, too: it was trained on real canvases and the prior's, "
            "and has seen nothing like them. Read a return beside FD and precision, or let the "
            "discriminator learn beside the policy."
        )
    return [
        "## Reference scores",
        markdown_table(rows, ["row", *columns], {"row": "", **headings(columns)}),
        f"`{measured['command']}`, on {measured['dataset']} (bundle `{measured['bundle']}`). "
        f'*Return* is that of the default reward, "single", from a full start, the mean of '
        f"{measured['count']} canvases or as many as there are; "
        "`agents/evaluation/evaluator.py` says what the other figures are; *nearest train* is by "
        "how many codes the twentieth that is nearest to training canvases differs from them. "
        f"`env.spec.reward_threshold` is {threshold}, the return of real canvases that no net was "
        f"trained on: a policy that exploits the discriminator may get more.{note}",
    ]


def history(task: Task) -> list[str]:
    """What has been measured of each edition of an id's bundle, the oldest first."""
    measured = reference.scores().get(task.id)
    if measured is None:
        return []
    if "earlier" not in measured:
        told = f"One edition of its bundle has been measured: `{measured['bundle']}`."
        return ["## History", told]
    rows = []
    for one in [*measured["earlier"], measured]:
        train, prior = (one["rows"][label] for label in (reference.TRAIN, reference.PRIOR))
        row: dict[str, Any] = {"edition": f"`{one['bundle']}`"}
        for figure in ("return", "fd", "precision", "coverage"):
            if figure in prior:
                row[figure] = f"{prior[figure]:.3f} / {train[figure]:.3f}"
        rows.append(row | {"forward_nll": prior["forward_nll"]})
    columns = list({name: None for row in reversed(rows) for name in row})
    return [
        "## History",
        markdown_table(rows, columns, {"edition": "edition of the bundle", **headings(columns)}),
        "The prior's figures, and behind a stroke those of real training canvases. Editions differ "
        "in codes, discriminator and feature net, so compare within a row: how near the prior "
        "comes to real ones. What changed: the [changelog](../../CHANGELOG.md).",
    ]


def page(task: Task) -> str:
    """The page of an id."""
    layout = CodeLayout(task.levels, task.num_codes)
    size, codes = task.image_size, task.num_codes
    steps = " + ".join(str(h * w) for h, w in task.levels)
    if len(task.levels) > 1:
        steps += f" = {layout.length}"
    facts = [
        ("image", f"{size}x{size} pixels, RGB"),
        ("named after", task.images),
        ("grids of codes", f"{task.grids}, coarsest first"),
        ("codes", f"{codes} a grid, from 0 to {codes - 1}"),
        ("steps of a whole episode", steps),
        ("observation space", f"`Box(0, {layout.outside}, ({layout.length},), int16)`: the canvas, "
         f"{layout.empty} is EMPTY, {layout.outside} is OUTSIDE"),
        ("action space", f"`Discrete({codes})`: the code for the first EMPTY cell"),
        ("bundle", f"`{task.bundle}`" if task.stand_in else f"`{task.bundle}`, which ships"),
    ]  # fmt: skip
    if task.stand_in:
        facts.append(("stand-in", f"`{task.stand_in}`: procedural faces, which ships"))
    parts = [
        f"# {task.id}",
        NOTE,
        task.about,
        *samples(task),
        *chart(task),
        f"""```python
import gymnasium as gym

env = gym.make("ral_env:{task.id}")
observation, info = env.reset(seed=0)
observation, reward, terminated, truncated, info = env.step(env.action_space.sample())

envs = gym.make_vec("ral_env:{task.id}", num_envs=4)
observations, infos = envs.reset(seed=0)
```""",
        table(("", ""), facts),
    ]
    parts += [*reference_scores(task), *history(task)]
    if task.paper:
        parts += ["## The paper's numbers", task.paper]
    if task.stand_in:
        command = bundle.make_command(task).replace(str(bundle.home()), HOME)
        parts += [
            "## The real bundle",
            f"Until it is found, the id runs on the stand-in, and says so in a warning. This makes "
            f"the bundle of {task.images}, from a folder of its images:",
            f"```sh\n{command}\n```",
            f"A bundle is found in the package, or in `{HOME}` (`$RAL_ENV_HOME/bundles` where that "
            "is set).",
        ]
    parts += [
        "## Networks",
        "`ral_env.nets` says what the words mean (`VQVAEConfig`, `PixelCNNConfig`, "
        "`PatchGANConfig`); what is zero or None is left out.",
        networks(RECIPES[task.bundle]),
    ]
    if task.stand_in:
        parts += [f"Those of the stand-in `{task.stand_in}`:", networks(RECIPES[task.stand_in])]
    parts += [
        "## Figures of the shipped bundle",
        "From its manifest, where the figures of its training are, too. What each is: the "
        "[glossary](../glossary.md). What was trained from it and how it did: the "
        "[results](../results.md) and the [leaderboard](../leaderboard.md).",
        manifest_figures(task.stand_in or task.bundle),
        "Rewards, starts, the end of an episode and the arguments are those of "
        "[all environments](README.md).",
    ]
    return "\n\n".join(parts) + "\n"


def index() -> str:
    """The table of all ids, and what they share."""
    rows = [
        (
            f"[`{task.id}`]({task.id}.md)",
            str(task.image_size),
            f"{task.grids} of {task.num_codes}",
            task.images,
            f"`{task.bundle}`",
            f"`{task.stand_in}`" if task.stand_in else "",
        )
        for task in TASKS.values()
    ]
    parts = [
        "# Environments",
        NOTE,
        table(("id", "image", "codes", "named after", "bundle", "stand-in"), rows),
        "`RALBundle-v0` takes a bundle of any shape: "
        '`gym.make("ral_env:RALBundle-v0", bundle="PATH or NAME")`.',
        "A stand-in has the id's shape, not its images: procedural faces, until the bundle is "
        "there. `ral envs` shows what each id runs on now.",
        "## What the shipped bundles reach",
        "Of training: the mean squared error of reconstructions (pixels in [-1, 1]); the prior's "
        "held-out nats a code, of each level, beside what is had from the code above alone, from "
        "the codes' frequencies, and, where it is known, from the truth; how well a discriminator "
        "of images and one of codes tell its samples from real canvases (0.5: not at all); hours "
        "on one core, which others often shared. Of the reference scores: FD, precision and "
        "coverage of samples at temperature 1, in parentheses as a share of what real canvases "
        "score. A recipe of the bundle's name makes it (`ral pretrain --recipe faces64`), `ral "
        "bench scores` measures it; an id's page has the command and pictures.",
        reached(),
        "## What is the same for all of them",
        "With pictures: [canvas](../concepts/canvas.md), "
        "[levels](../concepts/levels.md), [starts](../concepts/starts.md), "
        "[rewards](../concepts/rewards.md).",
    ]
    texts = sections()
    for title in SECTIONS:
        parts += [f"## {title}", texts[title]]
    return "\n\n".join(parts) + "\n"


def reached() -> str:
    """What each bundle that ships has reached, in training and by the reference scores."""
    rows = [bundle_row(name, ids) for name, ids in shipped().items()]
    head = (
        "bundle", "ids", "pixels' error", "nats a code", "the row above", "frequencies", "floor",
        "AUC, images", "AUC, codes", "FD", "of reals", "precision", "coverage", "hours",
    )  # fmt: skip
    return table(head, rows)


def shipped() -> dict[str, list[str]]:
    """The ids that run on each bundle that ships."""
    ids: dict[str, list[str]] = {}
    for task in TASKS.values():
        ids.setdefault(task.stand_in or task.bundle, []).append(task.id)
    return ids


def bundle_row(name: str, ids: Sequence[str]) -> tuple[str, ...]:
    """A row of :func:`reached`; a figure that there is not is empty."""
    metrics = bundle.load(bundle.SHIPPED / name, verify=False).manifest["metrics"]
    priors = metrics.get("priors") or metrics["prior"]
    kinds = metrics.get("discriminators", {})
    above = priors.get("previous_row_nats_per_code")
    codes = sum(rows * columns for rows, columns in TASKS[ids[0]].levels)
    aucs = [f"{kinds[kind]['auc']:.2f}" if kind in kinds else "" for kind in ("image", "codes")]
    rows = next((known["rows"] for id in ids if (known := reference.scores().get(id))), {})
    mine, real = rows.get(reference.PRIOR, {}), rows.get(reference.TRAIN, {})
    distances = [f"{row['fd']:.2f}" if "fd" in row else "" for row in (mine, real)]
    shares = [
        f"{mine[key]:.2f} ({mine[key] / real[key]:.0%})" if key in mine and key in real else ""
        for key in ("precision", "coverage")
    ]
    return (
        f"`{name}`",
        ", ".join(f"[{id.removeprefix('RAL').removesuffix('-v0')}]({id}.md)" for id in ids),
        f"{metrics['reconstruction']:.4f}",
        _decimals(priors["validation_nats_per_code"]),
        "" if above is None else _decimals(above),
        _decimals(priors["unigram_nats_per_code"]),
        f"{metrics['oracle']['entropy'] / codes:.2f}" if "oracle" in metrics else "",
        *aucs,
        *distances,
        *shares,
        f"{MINUTES[name] / 60:.1f}" if name in MINUTES else "",
    )


def write(folder: str | os.PathLike[str]) -> list[Path]:
    """Write all pages into a folder, which is made if need be; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"README": index(), **{task.id: page(task) for task in TASKS.values()}}
    for name, text in texts.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return [folder / f"{name}.md" for name in texts]


if __name__ == "__main__":
    for path in write(*sys.argv[1:2] or [Path(__file__).parent / "environments"]):
        print(path)
