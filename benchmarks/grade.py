"""``ral grade``: a submitted policy is sampled, checked against old tricks, and given a number.

    ral grade --env RALDigits-v0 --bundle runs/mine          # a run's folder, or a bundle
    ral grade --env RALDigits-v0 --agent my_agent:act        # as `ral bench submit` takes it

Nobody hands in pictures: the grader samples, at temperature 1, as many canvases as a row of the
id's reference scores has, and :func:`score` says how far they are from the prior (0) to real
canvases (100). :func:`gates` refuse what is cooled, copied or repeated; a refused submission has no
score. An agent is Python that runs as whoever grades it: grade strangers' in a container.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from agents.evaluation import metrics
from agents.evaluation.comparison import check_codecs
from agents.evaluation.evaluator import Evaluation, Evaluator, TemperedPrior, fd_figures, headings
from agents.training.files import Row
from benchmarks.demo import load_bundle
from benchmarks.leaderboard import page, protocol
from benchmarks.leaderboard.entries import Contender
from benchmarks.leaderboard.results import Results
from benchmarks.plots import labelled_grids
from benchmarks.scores import NEAREST, fd_columns
from benchmarks.submit import find, from_agent
from ral_env import bundle as bundles
from ral_env import reference
from ral_env.bundle import Bundle
from ral_env.files import check_writable, write_bytes
from ral_env.picture import to_bytes
from ral_env.ranges import SEED, check_values
from ral_env.tables import markdown_table

RESULTS = Path(__file__).with_name("results")  # the leaderboard's rows
REFUSED = 3  # exit status; bad input has 1
SHARE = 0.85  # of what real canvases or the prior reach, whichever is less: coverage, distances
MORE_ALIKE = 1.2  # times as many pairs of equal codes as real canvases or the prior have
SHOWN = ("return", "precision", "recall", "density", "coverage", "diversity", "nearest",
         "nll_oracle")  # fmt: skip
SHEET = 64  # samples, and as many real canvases, on the sheet


@dataclass(frozen=True)
class Gate:
    """A figure that a submission must reach.

    Attributes:
        figure: Its name.
        value: What was found.
        limit: The least that passes.
        against: What the limit is derived from, in words.
        reason: Why the submission is refused where it is not reached.
    """

    figure: str
    value: float
    limit: float
    against: str
    reason: str

    @property
    def is_passed(self) -> bool:
        return self.value >= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.is_passed else "<"
        return f"{self.figure} {self.value:.3f} {sign} {self.limit:.3f}, {self.against}"


@dataclass(frozen=True)
class Grade:
    """What was found of a submission.

    Attributes:
        env, name, edition: The id, what was submitted, the edition of the bundle it is measured on.
        seed, count: Of its canvases.
        score: See :func:`score`; it counts only where nothing is refused.
        low, high: Its 95 % interval, a paired bootstrap's over samples and test reals.
        figures: Those of the canvases, by name.
        gates: What they had to reach.
        rows: The id's reference scores.
        evaluation: The canvases, with their features.
    """

    env: str
    name: str
    edition: str
    seed: int
    count: int
    score: float
    low: float
    high: float
    figures: Row
    gates: Sequence[Gate]
    rows: Mapping[str, Row]
    evaluation: Evaluation

    @property
    def refused(self) -> list[str]:
        """The reasons to refuse it; none if it is accepted."""
        return [gate.reason for gate in self.gates if not gate.is_passed]

    @property
    def label(self) -> str:
        """What stands in tables: no reference row or entry is called so."""
        return f"{self.name} (submitted)"

    @property
    def beats_prior(self) -> bool:
        """Whether it is accepted, and the whole interval of its score is above the prior's 0."""
        return not self.refused and self.low > 0

    @property
    def order(self) -> list[str]:
        """Labels of the reference rows that have a distance, and this one's, nearest first."""
        distances = {label: row["fd"] for label, row in self.rows.items() if "fd" in row}
        distances[self.label] = self.figures["fd"]
        return sorted(distances, key=lambda label: distances[label])

    def text(self) -> str:
        """All of it, for people."""
        lines = [{"row": label} | (dict(self.rows) | {self.label: self.figures})[label]
                 for label in self.order]  # fmt: skip
        columns = [n for n in (*fd_columns(self.figures), *SHOWN) if n in self.figures]
        table = markdown_table(lines, ["row", *columns], {"row": "", **headings(columns)})
        parts = [
            f"{self.env}: {self.name}, {self.count:,} canvases of seed {self.seed}, against the "
            f"test split of {self.edition}",
            table,
            "\n".join(f"{'passed ' if g.is_passed else 'REFUSED'}  {g}" for g in self.gates),
        ]
        if self.refused:
            parts.append(f"no score: {'; '.join(self.refused)}")
        else:
            parts.append(
                f"score {self.score:.1f} [{self.low:.1f}, {self.high:.1f}] (0: the MLE prior, 100: "
                f"real canvases); place {self.order.index(self.label) + 1} of {len(self.order)} "
                "among the reference scores"
            )
        if not tells_much(self.rows):
            parts.append(
                "The prior is here about as near as real canvases are, so chance moves the score "
                "far: see its interval."
            )
        return "\n\n".join(parts)

    def record(self) -> dict[str, Any]:
        """The same for machines; ``score`` and its interval are None where it is refused."""
        gates = [asdict(gate) | {"passed": gate.is_passed} for gate in self.gates]
        told = {"score": self.score, "low": self.low, "high": self.high}
        return {
            "env": self.env, "submission": self.name, "bundle": self.edition, "seed": self.seed,
            "count": self.count, "accepted": not self.refused, "refused": self.refused,
            **({name: None for name in told} if self.refused else told),
            "gates": gates, "figures": dict(self.figures),
            "place": None if self.refused else self.order.index(self.label) + 1,
            "of": len(self.order),
        }  # fmt: skip


def score(figures: Mapping[str, float], rows: Mapping[str, Mapping[str, float]]) -> float:
    """How far of the way from the MLE prior, 0, to real canvases, 100; the prior's far side is < 0.

    ``100 (FD_prior - FD) / (FD_prior - FD_real)`` in each feature space, of which the lowest
    counts: what one space alone says is no claim. FD_real is that of real training canvases, all
    three against the test split, of equally many canvases.

    Args:
        figures: ``fd``, and ``fd_NAME`` of each further space.
        rows: The reference scores.
    """
    return min(_score(figures[name], name, rows) for name in fd_columns(rows[reference.PRIOR]))


def _score(distance: float, name: str, rows: Mapping[str, Mapping[str, float]]) -> float:
    prior, real = rows[reference.PRIOR][name], rows[reference.TRAIN][name]
    return 100 * (prior - distance) / max(prior - real, 1e-9)


def tells_much(rows: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether the prior is half as far again from the test split as real canvases are."""
    return rows[reference.PRIOR]["fd"] > 1.5 * rows[reference.TRAIN]["fd"]


def gates(
    figures: Mapping[str, float], rows: Mapping[str, Mapping[str, float]], real_nearest_test: float
) -> list[Gate]:
    """What canvases must reach: as much as real canvases and the prior do, less a margin.

    Coverage alone does not see cooling: a prior whose samples scatter covers more when it is
    cooled. The share of pairs of equal codes, 1 - diversity, rises with it everywhere.

    Args:
        figures: ``coverage``, ``diversity``, ``nearest`` and ``nearest_test``.
        rows: The reference scores.
        real_nearest_test: ``nearest_test`` of real training canvases.
    """
    prior, train, test = (rows[r] for r in (reference.PRIOR, reference.TRAIN, reference.REAL))

    def least(figure: str, real: float) -> tuple[float, str]:
        side = "real canvases'" if real <= prior[figure] else "the prior's"
        return min(real, prior[figure]), side

    cover, cover_of = least("coverage", train["coverage"])
    varied, varied_of = least("diversity", train["diversity"])
    near, near_of = least("nearest", test["nearest"])
    of = f"{SHARE} of"
    return [
        Gate("coverage", figures["coverage"], SHARE * cover, f"{of} {cover_of} {cover:.3f}",
             "it covers fewer kinds of real canvases than the prior"),
        Gate("diversity", figures["diversity"], 1 - MORE_ALIKE * (1 - varied),
             f"where {MORE_ALIKE} times as many pairs of codes are equal as at {varied_of} "
             f"{varied:.3f}", "its canvases are alike, as cooled or repeated ones are"),
        Gate("nearest", figures["nearest"], SHARE * near, f"{of} {near_of} {near:.1f} codes",
             "it copies training canvases"),
        Gate("nearest_test", figures["nearest_test"], SHARE * real_nearest_test,
             f"{of} training canvases' {real_nearest_test:.1f} codes",
             "it copies test canvases, from which nothing may learn"),
    ]  # fmt: skip


class Grader:
    """Grades submissions to one environment.

    Args:
        env: Id of the environment.
        references: JSON file of reference scores, as ``ral bench scores`` leaves it.

    Raises:
        ValueError: If the file has no distances of the id's bundle as it is now.
    """

    def __init__(self, env: str, references: str | Path = reference.FILE):
        self.env, self.bundle = env, load_bundle(env)
        self.evaluator = Evaluator(self.bundle)
        spaces = list(fd_figures(self.bundle.feature_nets).values())
        measured = _measured(env, self.bundle, spaces, Path(references))
        self.rows: dict[str, Row] = measured["rows"]
        self.count: int = measured["count"]
        self.train, self.test = self.bundle.split("train"), self.bundle.split("test")

    @cached_property
    def prior(self) -> Evaluation:
        """The canvases of the prior's reference row."""
        grids = self.evaluator.sample(TemperedPrior(self.bundle.priors), self.count, seed=0)
        return Evaluation(grids, {}, self.evaluator.features(grids))

    @cached_property
    def real_nearest_test(self) -> float:
        """Codes by which real training canvases differ from their nearest test canvas."""
        return metrics.nearest_distance(self.test, self.train[: self.count], NEAREST)

    def grade(self, contender: Contender, name: str = "submission", seed: int = 0) -> Grade:
        """Sample a contender, and say what was found of it.

        Args:
            contender: Its priors, at temperature 1, or its canvases are graded.
            name: What it is called.
            seed: Seed of the canvases.
        """
        draw = contender.draw
        if draw is None:
            draw = partial(self.evaluator.sample, TemperedPrior(contender.priors))
        found = self.evaluator.evaluate_canvases(draw(self.count, seed))
        flat = self.bundle.layout.flatten(found.grids).numpy().astype(self.train.dtype)
        figures = found.figures | {
            "return": found.figures["score"],  # by the discriminator; score is the grade's here
            "nearest": metrics.nearest_distance(self.train, flat, NEAREST),
            "nearest_test": metrics.nearest_distance(self.test, flat, NEAREST),
        }
        del figures["score"]
        checked = gates(figures, self.rows, self.real_nearest_test)
        value = score(figures, self.rows)
        low, high = self._interval(found)
        return Grade(self.env, name, self.bundle.edition, seed, self.count, value, low, high,
                     figures, checked, self.rows, found)  # fmt: skip

    def _interval(self, found: Evaluation) -> tuple[float, float]:
        """95 % interval of the score in the space that counts, against the prior's canvases."""
        differences = self.evaluator.fd_differences(found, self.prior)
        space = min(differences, key=lambda name: _score(found.figures[name], name, self.rows))
        changed, at = differences[space], found.figures[space] - differences[space].value
        low, high = (_score(at + end, space, self.rows) for end in (changed.high, changed.low))
        return low, high

    def save_sheet(self, grade: Grade, file: Path) -> None:
        """Write its samples beside real canvases as a PNG file."""
        told = "refused" if grade.refused else f"score {grade.score:.1f}"
        shown = {
            f"{grade.name}: {told}": [grid[:SHEET] for grid in grade.evaluation.grids],
            "real, reconstructed (test)": [grid[:SHEET] for grid in self.evaluator.held_out],
        }
        images = {title: to_bytes(self.evaluator.images(grids)) for title, grids in shown.items()}
        scale = max(1, 64 // self.bundle.image_size)
        labelled_grids(images, file, columns=8, scale=scale)


def _measured(env: str, bundle: Bundle, spaces: Sequence[str], file: Path) -> dict[str, Any]:
    """An id's reference scores, if they are of this bundle and have what a grade needs."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    again = f"measure it with `ral bench scores {env} --out FILE`, and name FILE as --references"
    found = known.get(env)
    if found is None:
        raise ValueError(f"{file} has no reference scores of {env}: {again}")
    if found["bundle"] != bundle.edition:
        raise ValueError(
            f"{file} has reference scores of {env} on the bundle {found['bundle']}, but it runs on "
            f"{bundle.edition} here: {again}"
        )
    needed = ("coverage", "diversity", *spaces)
    lacking = [name for name in needed if name not in found["rows"].get(reference.PRIOR, {})]
    if lacking or not spaces or "nearest" not in found["rows"][reference.REAL]:
        able = [other for other, record in known.items()
                if "fd" in record["rows"].get(reference.PRIOR, {})]  # fmt: skip
        why = (
            f"lack {', '.join(lacking) or 'nearest'}: with --count 250 or more {again}"
            if spaces
            else "have no Fréchet distance, since its bundle has no feature net"
        )
        raise ValueError(f"the reference scores of {env} {why}; or choose one of {', '.join(able)}")
    return found


def policies_of(folder: str, bundle: Bundle) -> Contender:
    """The fine-tuned priors of a run's folder or of a bundle.

    Raises:
        ValueError: If there is no bundle, it has no priors, or its codes mean other images.
    """
    path = Path(folder).expanduser()
    if not (path / "manifest.json").is_file() and (path / "bundle" / "manifest.json").is_file():
        folder = str(path / "bundle")
    submitted = bundles.load(folder)
    check_codecs([bundle, submitted])
    priors = submitted.policies or submitted.priors
    if not priors:
        raise ValueError(f"{submitted!r} has no priors to sample from: submit one that has")
    return Contender(priors, temperatures=(1.0,))


def standing(
    contender: Contender, grade: Grade, bundle: Bundle, folder: Path
) -> tuple[str, dict[str, int]] | None:
    """Where a submission stands on the leaderboard, as a table and as a place.

    It is measured as the leaderboard's rows are, but at temperature 1 and without judges; only rows
    of this edition of the bundle and of that many samples count.

    Returns:
        None where there are no such rows.
    """
    records = [
        record
        for record in Results(folder / f"{grade.env}.csv").records
        if record["bundle"] == bundle.edition and record.get("samples") == protocol.SAMPLES
    ]
    if not records:
        return None
    key = {"env": grade.env, "entry": grade.label, "seed": grade.seed}
    figures = protocol.measure(contender, bundle, grade.seed, protocol.SAMPLES, judges=0)
    every = [*records, key | {"canvases": 0, "seconds": 0.0} | figures]
    order = list(page.grouped(every))
    place = {"place": order.index(grade.label) + 1, "of": len(order)}
    return page.table(every), place


def command(
    env: str,
    bundle: str | None = None,
    agent: str | None = None,
    seed: int = 0,
    references: str = str(reference.FILE),
    leaderboard: str = str(RESULTS),
    out: str = "runs/grade",
) -> int:
    """Grade a policy, print what was found, and write ``grade.json`` and ``sheet.png``.

    Args:
        env: Id of the environment.
        bundle: A run's folder, or a bundle, whose priors are graded.
        agent: Or a function that writes codes, module:function.
        seed: Seed of the canvases; the grade depends on it, and on what was submitted, alone.
        references: JSON file of reference scores, as `ral bench scores` leaves it.
        leaderboard: Folder of the leaderboard's rows; where it has none of this id's bundle, the
            grade says nothing of it.
        out: Folder of grade.json and sheet.png.

    Returns:
        The exit status: 0, or 3 for a submission that is refused.
    """
    check_values({"seed": seed}, seed=SEED)
    if (bundle is None) == (agent is None):
        raise ValueError(
            f"bundle={bundle!r} and agent={agent!r}, expected one of them: a run's folder or a "
            "bundle, or module:function"
        )
    folder = Path(out)
    check_writable(folder / "grade.json")
    torch.set_num_threads(1)
    grader = Grader(env, references)
    if bundle is not None:
        contender = policies_of(bundle, grader.bundle)
    else:
        contender = from_agent(find(str(agent)), grader.bundle)
    grade = grader.grade(contender, str(bundle or agent), seed)
    print(grade.text())
    stands = None
    if not grade.refused:
        stands = standing(contender, grade, grader.bundle, Path(leaderboard))
    if stands:
        table, place = stands
        print(f"\n{table}\n\nplace {place['place']} of {place['of']} on the leaderboard")
    record = grade.record() | {"leaderboard": stands and stands[1]} | protocol.provenance()
    write_bytes(folder / "grade.json", f"{json.dumps(record, indent=2)}\n".encode())
    grader.save_sheet(grade, folder / "sheet.png")
    print(f"\nwrote {folder / 'grade.json'} and {folder / 'sheet.png'}")
    return REFUSED if grade.refused else 0


def main(argv: list[str] | None = None) -> int:
    """Grade a submitted policy: one number, or the reason why it is refused.

    The policy is sampled here. The score is 100 (FD_prior - FD) / (FD_prior - FD_real): 0 is the
    MLE prior, 100 as near to the test split as real training canvases are, with no bound on either
    side; where the bundle has two feature nets, the lower score counts. Cooled, copied and repeated
    canvases are refused, with exit status 3.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="ral grade", description=main.__doc__)
    parser.add_argument(
        "--bundle", "--policy", metavar="FOLDER", type=str | None, default=None,
        help="a run's folder, or a bundle, whose priors are graded",
    )  # fmt: skip
    parser.add_function_arguments(command, as_group=False, skip={"bundle"})
    return command(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
