"""Every column of a CSV that a run leaves has its entry in docs/glossary.md, and conversely."""

from __future__ import annotations

import csv
import re
import runpy
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from conftest import tiny_parts
from torch import Tensor

from agents import reinforce
from agents.train import ALGORITHMS
from agents.training.discriminator import DiscriminatorTraining
from pretrain import run
from ral_env import bundle
from ral_env.cli import main
from ral_env.nets import FeatureNet, FeatureNetConfig

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
short: Callable = runpy.run_path(str(ROOT / "tests" / "pretrain" / "short_recipes.py"))["short"]


def entries() -> dict[str, set[str]]:
    """Names in the first cells of the tables of each section of the glossary, by its title."""
    found: dict[str, set[str]] = {}
    for section in re.split(r"^## ", GLOSSARY.read_text(), flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        cells = re.findall(r"^\| (`.+?) \|", text, re.MULTILINE)
        found[title] = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    return found


def columns(folder: Path) -> dict[str, set[str]]:
    """The columns of every CSV below a folder, by the file's name."""
    found: dict[str, set[str]] = {}
    for file in folder.rglob("*.csv"):
        with file.open(newline="") as stream:
            found.setdefault(file.name, set()).update(next(csv.reader(stream)))
    return found


def brightness(images: Tensor) -> Tensor:
    """A reward of one's own."""
    return images.mean((1, 2, 3))


OWN = f"{__name__}:brightness"
pytestmark = pytest.mark.timeout(1200)  # seconds on a quiet core, but every algorithm trains


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A tiny bundle with all that is measured: an oracle, two feature nets, tuned by codes."""
    parts = tiny_parts("codes")
    features = parts.pop("features")
    nets = {
        "labels": features,
        "selfsupervised": FeatureNet(FeatureNetConfig(hidden=4, features=8)),
    }
    splits = {"train": (0, 24), "validation": (24, 30), "test": (30, 40)}
    path = tmp_path_factory.mktemp("bundles") / "measured"
    return bundle.save(path, **parts | {"feature_nets": nets, "splits": splits})


@pytest.fixture(scope="module")
def left(measured, tmp_path_factory) -> dict[str, dict[str, set[str]]]:
    """Of every kind of run the columns of its CSVs, with every loss and term switched on."""
    made: dict[str, dict[str, set[str]]] = {}
    short_run = {"bundle": str(measured), "env": "RALBundle-v0", "canvases": 8, "seed": 0}
    folder = tmp_path_factory.mktemp("runs")
    losses = [DiscriminatorTraining(loss="logistic", r1=0.1), DiscriminatorTraining(loss="hinge"),
              DiscriminatorTraining(loss="wgan-gp")]  # fmt: skip
    for number, loss in enumerate(losses):
        config = reinforce.Config(
            **short_run, iterations=1, start="full", discriminator_input="codes",
            discriminator_net=None, discriminator_warmup=1, discriminator_updates=1,
            discriminator=loss, kl_loss_coef=0.1, ent_coef=0.1, mle_coef=0.1,
        )  # fmt: skip
        reinforce.train(config, folder / "reinforce" / str(number), progress=False)
    config = reinforce.Config(**short_run, iterations=1, start="full", reward_fn=OWN, guard_every=1)
    reinforce.train(config, folder / "reinforce" / "own", progress=False)
    common = ["--env", "RALBundle-v0", "--bundle", str(measured), "--canvases", "8"]
    for algo in set(ALGORITHMS) - {"reinforce"}:
        words = ["train", "--algo", algo, *common, "--out", str(folder / algo / "run")]
        words += ["--discriminator_warmup", "1", "--discriminator_updates", "1"]
        if algo == "rounds":
            words += ["--rounds", "1", "--discriminator_canvases", "4", "--updates", "1"]
        else:
            words += ["--rollouts", "2", "--value_warmup", "0"]
        assert main(words) == 0
    run.pretrain(
        short("oracle-two-level"), folder / "pretrain" / "bundle", work=folder / "pretrain" / "work"
    )
    for kind in folder.iterdir():
        made[kind.name] = columns(kind)
    return made


def named(names: set[str], losses: set[str]) -> set[str]:
    """Names as the glossary has them: those that are made of others' under their pattern.

    Args:
        losses: names of the discriminator's losses, which SB3's runs log as discriminator/NAME.
    """
    found = set()
    for name in names:
        bare = name.removeprefix("prior_")
        found |= {"prior_NAME"} if bare != name else set()
        if name.removeprefix("discriminator/") in losses and "/" in name:
            bare = "discriminator/NAME"
        found.add("fd_NAME" if bare.startswith("fd_") else bare)
    return found


def union(left: dict[str, dict[str, set[str]]], kinds: Iterable[str], file: str) -> set[str]:
    return set().union(*(left[kind].get(file, set()) for kind in kinds))


def test_every_column_has_an_entry_and_every_entry_a_column(left):
    told = entries()
    losses = {"cross_entropy", "r1", "hinge", "wasserstein", "gradient_penalty"}
    assert losses <= told["progress.csv of REINFORCE"]
    sb3 = set(ALGORITHMS) - {"reinforce", "rounds"}
    stages = set().union(*left["pretrain"].values())
    expected = {
        "metrics.csv": named(union(left, set(ALGORITHMS), "metrics.csv"), losses),
        "progress.csv of REINFORCE": union(left, {"reinforce"}, "progress.csv"),
        "progress.csv of rounds": union(left, {"rounds"}, "progress.csv"),
        "progress.csv of Stable-Baselines3's": named(union(left, sb3, "progress.csv"), losses),
        "CSVs of pretraining": stages,
    }
    for title, names in expected.items():
        assert told[title] == names, title


def test_every_kind_of_run_leaves_its_csvs(left):
    for algo in ALGORITHMS:
        assert set(left[algo]) == {"progress.csv", "metrics.csv"}
    assert len(left["pretrain"]) >= 3
