"""The rows of ``ral evaluate``: bundles' priors beside real canvases, at one temperature and at
all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch

from agents.evaluation import frontier, image_folder, published
from agents.evaluation.evaluator import Evaluation, Evaluator, TemperedPrior, headings
from agents.evaluation.frontier import Frontier
from agents.evaluation.image_folder import RealImages
from agents.evaluation.published import PublishedNets
from agents.evaluation.two_sample import (
    REPLACED,
    TRAINING,
    ClassifierTraining,
    CodeTest,
    replace_codes,
)
from agents.training.files import Row
from ral_env.bundle import Bundle
from ral_env.nets import Prior
from ral_env.picture import to_bytes
from ral_env.ranges import SEED, check_ranges
from ral_env.tables import markdown_table

FRONTIER_COLUMNS = (
    "temperature", "fd", "precision", "recall", "density", "coverage", "forward_nll", "area",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What ``ral evaluate`` measures.

    Args:
        count: Number of samples of each bundle, 20 or more. Fréchet distances at different counts
            cannot be compared.
        seed: Seed of the samples.
        judges: Number of judges of each row, 2 or more; 0 leaves "judge AUC" out.
        judge_steps: Largest number of updates of each judge; it stops early when it learns no more.
        judge_seconds: Longest training of each judge, in seconds; no limit if not given.
        temperatures: Temperatures that every bundle is sampled at for the frontier; none leave it
            out.
        reals: Folder of raw real images that folders of images are measured against; the bundle's
            real codes, decoded, if not given.
    """

    count: int = 1000
    seed: int = 0
    judges: int = 5
    judge_steps: int = TRAINING.steps
    judge_seconds: float | None = None
    temperatures: Sequence[float] = frontier.TEMPERATURES
    reals: str = ""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            count="[20, inf)",
            seed=SEED,
            judges="[0, inf)",
            judge_steps="[1, inf)",
            judge_seconds="(0, inf)",
            temperatures="(0, inf)",
        )

    @property
    def classifiers(self) -> ClassifierTraining:
        """How judges are trained."""
        training = replace(TRAINING, steps=self.judge_steps)
        return ClassifierTraining(self.judges, training, seconds=self.judge_seconds)


class Comparison:
    """Rows of figures against the held-out codes of one bundle.

    Args:
        bundle: Whose real codes all rows are measured against.
        settings: What is measured.
        nets: Published networks; by default those that this machine has.

    Attributes:
        editions: What the bundles that were added call themselves, by label.
        rows: Figures by label: real canvases first, and what was added.
        frontiers: The sweeps of priors that were added, by label; none without a feature net.
        image_rows: Figures by label of the folders of images that were added, their reals first.
    """

    def __init__(self, bundle: Bundle, settings: Settings, nets: PublishedNets | None = None):
        self.bundle, self.settings = bundle, settings
        self.nets = nets or published.find()
        self.evaluator = Evaluator(bundle)
        self.test = (
            CodeTest(bundle, settings.count, settings.classifiers) if settings.judges else None
        )
        self.editions: dict[str, str] = {}
        self.rows: dict[str, Row] = {}
        self.frontiers: dict[str, Frontier] = {}
        self.image_rows: dict[str, Row] = {}
        self._add_reals()

    def _add_reals(self) -> None:
        """Real training canvases; and those with codes replaced, which judges must see."""
        layout, settings = self.bundle.layout, self.settings
        real = [g[: settings.count] for g in layout.as_grids(self.bundle.split("train"))]
        self.real_label = f"real, {len(real[0])} of the training set"
        self.rows[self.real_label] = self._figures_of(self.evaluator.evaluate_canvases(real))
        if self.test:
            self.rows[self.real_label] |= self.test.floor(settings.seed).figures
            replaced = replace_codes(real, layout.num_codes, seed=settings.seed)
            self.replaced_label = f"real, {REPLACED:.0%} of codes replaced"
            found = self.evaluator.evaluate_canvases(replaced)
            self.rows[self.replaced_label] = self._figures_of(found)
            self.rows[self.replaced_label] |= self.test.power(settings.seed).figures

    def add_bundle(self, label: str, bundle: Bundle) -> None:
        """Measure a bundle's priors, if it has any, at temperature 1 and at all."""
        self.editions[label] = bundle.edition
        if bundle.priors:
            self._add_priors(label, bundle.priors)

    def _add_priors(self, label: str, priors: Sequence[Prior]) -> None:
        prior, settings = TemperedPrior(priors), self.settings
        found = self.evaluator.evaluate_prior(prior, settings.count, settings.seed)
        self.rows[label] = self._figures_of(found)
        if self.test:
            held_out = len(self.test.held_out[0])
            unseen = self.evaluator.sample(prior, held_out, settings.seed + 1)
            judged = self.test.of_samples(found.grids, unseen, settings.seed)
            self.rows[label] |= judged.figures
        if settings.temperatures and "precision" in self.rows[self.real_label]:
            splits = self.evaluator, self._tuning
            self.frontiers[label] = frontier.sweep(
                priors, *splits, settings.temperatures, settings.count, settings.seed
            )

    @cached_property
    def _tuning(self) -> Evaluator:
        """Measures against the split that temperatures are chosen on."""
        return Evaluator(self.bundle, split=self.bundle.tuning_split)

    def _figures_of(self, found: Evaluation) -> Row:
        """Figures of canvases, with those of published networks where there are any."""
        if not self.nets.embeddings:
            return found.figures
        fake = self.nets.features(self._bytes(found.grids))
        return found.figures | published.figures(self._published_real, fake)

    @cached_property
    def _published_real(self) -> dict[str, torch.Tensor]:
        """Published networks' features of held-out real codes, decoded."""
        return self.nets.features(self._bytes(self.evaluator.held_out))

    def _bytes(self, grids: Sequence[torch.Tensor]) -> torch.Tensor:
        """Decoded codes as uint8 images (N, 3, S, S)."""
        return torch.from_numpy(to_bytes(self.evaluator.images(grids)))

    @cached_property
    def _real_images(self) -> RealImages:
        """What folders of images are measured against."""
        settings = self.settings
        classifiers = settings.classifiers if settings.judges else None
        common = self.nets, classifiers
        if settings.reals:
            return image_folder.raw_reals(settings.reals, self.evaluator, settings.count, *common)
        train = self.bundle.layout.as_grids(self.bundle.split("train"))
        train = [grid[: settings.count] for grid in train]
        return image_folder.reconstructed_reals(train, self.evaluator, *common)

    def add_images(self, folder: str) -> None:
        """Measure a folder of images, whoever has made them.

        Against reconstructed reals also their own reconstructions, where the codec encodes.
        """
        settings, reals = self.settings, self._real_images
        made = image_folder.read(folder, self.bundle.image_size, settings.count)
        if not self.image_rows:
            label = f"real, {reals.kind}, {len(reals.train)} others"
            self.image_rows[label] = reals.floor(settings.seed)
        self.image_rows[f"{folder}, {len(made)} as they are"] = reals.figures(made, settings.seed)
        if reals.kind == "reconstructed" and hasattr(self.bundle.vqvae, "encode"):
            codes = image_folder.encode(self.evaluator, made)
            found = reals.figures(self._bytes(codes), settings.seed)
            self.image_rows[f"{folder}, {len(made)} reconstructed"] = found

    @property
    def nll_bound(self) -> float:
        """Largest forward NLL on the tuning split that a chosen temperature may have, nats."""
        first = next(iter(self.frontiers.values()), None)
        return math.inf if first is None else frontier.NLL_BOUND * first.least_nll

    def text(self) -> str:
        """The tables and what they mean."""
        codes, features = len(self.evaluator.held_out[0]), self.evaluator.held_out_count
        held_out = f"{codes} held-out canvases"
        if features != codes:
            held_out += f" (by their features {features})"
        editions = "; ".join(f"{label}: bundle {name}" for label, name in self.editions.items())
        lines = [
            f"{self.settings.count} samples, {held_out} of {self.bundle.dataset}. {editions}",
            "",
            table(self.rows),
        ]
        if self.test:
            lines += ["", power_note(self.rows[self.real_label], self.rows[self.replaced_label])]
        if self.frontiers:
            lines += ["", self._frontier_text()]
        if self.image_rows:
            lines += ["", self._images_text()]
        if self.nets.missing:
            lines += ["", *self.nets.missing]
        return "\n".join(lines)

    def _frontier_text(self) -> str:
        temperatures = ", ".join(f"{t:g}" for t in self.settings.temperatures)
        split, real = self.bundle.tuning_split, self.rows[self.real_label]
        if split == "validation":
            split += " split (there is no tuning split: its priors stopped training by it, too)"
        else:
            split += " split"
        note = (
            f"The frontier, temperatures {temperatures}. Each row is at the temperature of least "
            f"FD on the {split}, of those whose forward NLL there is at most {self.nll_bound:.4g} "
            "nats; its figures are those of the test split. Area: what its temperatures dominate "
            "of the plane of precision and coverage, with a 95 % bootstrap interval."
        )
        area = frontier.dominated_area([(real["precision"], real["coverage"])])
        rows = {self.real_label: real | {"area": area}}
        rows |= frontier.rows(self.frontiers, self.nll_bound)
        lines = [note, "", frontier_table(rows)]
        base, *others = self.frontiers
        for label in others:
            found = self.frontiers[label].area_minus(self.frontiers[base])
            lines += ["", f"Area of {label} less that of {base}: {found}"]
        return "\n".join(lines)

    def _images_text(self) -> str:
        reals = self._real_images
        note = (
            f"Images against {len(reals.held_out)} real ones, which are {reals.kind}. A decoder's "
            "traces alone tell raw images from reconstructions, judge AUC 1: compare rows of one "
            "kind."
        )
        return "\n".join([note, "", table(self.image_rows)])

    def record(self) -> dict[str, Any]:
        """All figures, as JSON holds them."""
        return {
            **asdict(self.settings),
            "dataset": self.bundle.dataset,
            "editions": self.editions,
            "rows": self.rows,
            "image_rows": self.image_rows,
            "frontiers": {label: found.record() for label, found in self.frontiers.items()},
        }


def table(rows: Mapping[str, Row]) -> str:
    """A line for each row, four significant digits."""
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = [
        {"row": name} | {key: f"{value:.4g}" for key, value in row.items()}
        for name, row in rows.items()
    ]
    return markdown_table(lines, ["row", *columns], headings(columns))


def frontier_table(rows: Mapping[str, Row]) -> str:
    """A line for each row of :func:`agents.evaluation.frontier.rows`, with the area's interval."""
    lines = []
    for name, row in rows.items():
        cells = {c: f"{row[c]:.4g}" for c in FRONTIER_COLUMNS if c in row}
        if "area_low" in row:
            cells["area"] += f" [{row['area_low']:.3f}, {row['area_high']:.3f}]"
        lines.append({"row": name} | cells)
    return markdown_table(lines, ["row", *FRONTIER_COLUMNS], headings(FRONTIER_COLUMNS))


def power_note(floor: Row, power: Row) -> str:
    """Whether judges see that codes were replaced, in words, from the figures of both rows."""
    deviation = max(floor["judge_auc_deviation"], power["judge_auc_deviation"])
    if power["judge_auc"] > floor["judge_auc"] + 2 * deviation:
        return f"Judges tell reals with {REPLACED:.0%} of their codes replaced from reals."
    return (
        f"Judges do not tell reals with {REPLACED:.0%} of their codes replaced from reals, so a "
        "judge AUC near 0.5 says nothing here: raise --judge_steps or --count."
    )


def check_codecs(loaded: Sequence[Bundle]) -> None:
    """Refuse bundles whose codes mean other images than those of the first.

    Raises:
        ValueError: if one has other grids, or another VQ-VAE.
    """
    first, *others = loaded
    for other in others:
        if other.layout != first.layout or not _same_weights(other.vqvae, first.vqvae):
            raise ValueError(
                f"{other!r} has another VQ-VAE than {first!r}, so their codes mean other images: "
                "they cannot be measured together"
            )


def _same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in ours.items()
    )
