"""What a name on the page stands for: an environment's id, a bundle, or the folder of a run."""

from __future__ import annotations

import copy
import json
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as deserialise
from torch import nn

from ral_env import StandInWarning
from ral_env import bundle as bundles
from ral_env.bundle import Bundle, hub
from ral_env.envs.frames import FramePainter
from ral_env.envs.scorer import Scorer
from ral_env.tasks import TASKS

Nets = Sequence[nn.Module]  # the priors of all levels, top first

KEPT = 4  # opened sources that are kept, and in each of them nets
DEPTH = 3  # folders below the one whose runs are offered
STEP, FINAL = "step-", "final"  # names of a run's policies
REAL = "real"  # stands where the name of a policy does, for real pictures


class Source:
    """All that paints and judges: a bundle, and where it is a run's what became of its priors.

    Scores are those of the bundle's discriminator, also for the policies of a run: of the bundle
    that the run began with. All of them have one judge.

    Args:
        name: what the page calls it.
        bundle: decodes, scores and has the priors.
        note: what is to be said of it, such as that it stands in for another.
        run: the folder of the run that began with the bundle, or None.
        began: the bundle whose priors those of a fine-tuned ``bundle`` were before, or None.
    """

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        note: str = "",
        run: Path | None = None,
        began: Bundle | None = None,
    ):
        self.name, self.bundle, self.note, self.run, self.began = name, bundle, note, run, began
        self.layout = bundle.layout
        self.scorer = Scorer(bundle, torch.device("cpu"))
        self.painter = FramePainter(self.scorer, bundle.split("train"), None)
        self._nets: OrderedDict[Any, Nets] = OrderedDict()

    @property
    def mle(self) -> Nets:
        """The priors that all others began as; empty if there are none."""
        return (self.began or self.bundle).priors

    def policies(self) -> dict[str, str]:
        """Names and titles of all that can paint, the MLE prior first; a run may still add some."""
        found = {}
        if self.mle:
            tuned = _is_tuned(self.began or self.bundle)
            found["mle"] = "Fine-tuned prior" if tuned else "MLE prior"
        if self.bundle.policies or self.began:
            found["policy"] = "RAL policy"
        found |= {f"{STEP}{number}": f"RAL, step {number}" for number in self._kept()}
        if self.run and (self.run / "bundle" / "manifest.json").is_file():
            found[FINAL] = "RAL, final"
        return found

    def nets(self, policy: str) -> Nets:
        """The priors of that name, one a level.

        Raises:
            ValueError: if there is none of that name, or its file does not fit the bundle.
        """
        known = self.policies()
        if policy not in known:
            raise ValueError(f"policy={policy!r}, expected one of {[*known]} of {self.name}")
        if policy == "mle":
            return self.mle
        if policy == "policy":
            return self.bundle.priors if self.began else self.bundle.policies
        assert self.run is not None
        at_end = policy == FINAL
        number = "" if at_end else policy.removeprefix(STEP)
        file = self.run / "bundle" / "manifest.json" if at_end else self._kept()[number]
        return _remembered(
            self._nets, (file, file.stat().st_mtime_ns), lambda: self._read(file, at_end)
        )

    def _read(self, file: Path, at_end: bool) -> Nets:
        if at_end:
            return bundles.load(file.parent).priors
        nets = nn.ModuleList(copy.deepcopy(list(self.bundle.priors)))
        try:
            nets.load_state_dict(deserialise(file.read_bytes()))
        except (RuntimeError, ValueError, OSError) as error:  # as torch and safetensors put it
            raise ValueError(f"{file} does not fit the priors of {self.name}: {error}") from error
        return list(nets.eval())

    def _kept(self) -> dict[str, Path]:
        """The policies that a run has kept on its way, by the step that each is of."""
        if self.run is None or not self.bundle.priors:
            return {}
        files = sorted(self.run.glob("policy-*.safetensors"))
        numbers = (file.stem.removeprefix("policy-") for file in files)
        return {str(int(n)): f for n, f in zip(numbers, files, strict=True) if n.isdigit()}


class Library:
    """Opens sources by name, and keeps the last few.

    Args:
        folder: runs and bundles below it are offered, and may be opened.
        given: further runs and bundles that may be opened: paths.
    """

    def __init__(self, folder: Path, given: Sequence[str] = ()):
        self.folder, self.given = folder, [str(path) for path in given]
        self._open: OrderedDict[Any, Source] = OrderedDict()

    def offered(self) -> dict[str, list[dict[str, str]]]:
        """What there is to open: ids, bundles and runs, each with its name and what it is."""
        ids = [{"name": task.id, "about": task.about} for task in TASKS.values()]
        named = [{"name": name, "about": ""} for name in bundles.names()]
        runs, other = [], []
        for path in [*map(Path, self.given), *self._below()]:
            kind = runs if (path / "config.json").is_file() else other
            if not any(entry["name"] == str(path) for entry in kind):
                kind.append({"name": str(path), "about": ""})
        return {"environments": ids, "bundles": named + other, "runs": runs}

    def _below(self) -> Iterator[Path]:
        for depth in range(1, DEPTH + 1):
            for folder in sorted(self.folder.glob("/".join(["*"] * depth))):
                is_run = (folder / "config.json").is_file()
                is_bundle = (folder / "manifest.json").is_file()
                # What a run leaves, and what it is at, is shown as the run.
                of_a_run = (folder.parent / "config.json").is_file()
                if (is_run or is_bundle) and not of_a_run and not folder.name.startswith("."):
                    yield folder

    def open(self, name: str) -> Source:
        """The source of that name; it is read anew when its files have changed.

        Raises:
            ValueError: if there is none, it cannot be read, or it lies where nothing is offered.
        """
        word = bundles.choose(TASKS[name])[0] if name in TASKS else name
        is_bare = Path(word).name == word  # a path is no name, wherever it leads
        folder = (bundles.named(word) if is_bare else None) or self._allowed(name)
        manifests = (folder / part for part in ("manifest.json", "bundle/manifest.json"))
        stamps = tuple(file.stat().st_mtime_ns for file in manifests if file.is_file())
        return _remembered(self._open, (name, folder, stamps), lambda: _read(name, folder))

    def _allowed(self, name: str) -> Path:
        path = Path(name)
        below = path.resolve().is_relative_to(self.folder.resolve())
        if not below and name not in self.given:
            raise ValueError(
                f"source={name!r} is neither an id, nor the name of a bundle, nor a folder below "
                f"{str(self.folder)!r}: start `ral view --folder FOLDER` with the one that holds it"
            )
        if not any((path / file).is_file() for file in ("manifest.json", "config.json")):
            raise ValueError(f"source={name!r} is no run and no bundle: no such files are in it")
        return path


def _read(name: str, folder: Path) -> Source:
    if name in TASKS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", StandInWarning)
            bundle = bundles.for_task(TASKS[name])
        notes = [str(each.message) for each in caught if each.category is StandInWarning]
        return Source(name, bundle, " ".join(notes))
    if (folder / "manifest.json").is_file():
        bundle = bundles.load(folder)
        return Source(name, bundle, began=_began_with(bundle))
    return _read_run(name, folder)


def _read_run(name: str, folder: Path) -> Source:
    """A run of an agent, from the bundle that it began with; of pretraining, the one that it made.

    Raises:
        ValueError: if neither can be read.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    bundle = _chosen(config)
    if bundle:
        return Source(name, bundle, run=folder)
    if not (folder / "bundle" / "manifest.json").is_file():
        raise ValueError(f"source={name!r} is a run that has made no bundle yet: let it end first")
    return Source(name, bundles.load(folder / "bundle"))


def _chosen(config: Mapping[str, Any]) -> Bundle | None:
    """The bundle that the settings of an agent's run choose; None of what is no agent's."""
    env, chosen = config.get("env"), config.get("bundle")
    if chosen:
        return bundles.load(chosen)
    return bundles.for_task(TASKS[env]) if env in TASKS else None


def _is_tuned(bundle: Bundle) -> bool:
    return "fine_tuned_from" in bundle.recipe


def _began_with(bundle: Bundle) -> Bundle | None:
    """The bundle that a fine-tuned one's run began with; None if it is not here as it was then."""
    digest, chosen = bundle.recipe.get("bundle_digest"), bundle.recipe.get("bundle")
    if not _is_tuned(bundle) or not digest or str(chosen).startswith(hub.SCHEME):
        return None  # to look at a bundle fetches no other
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StandInWarning)
            found = _chosen(bundle.recipe)
    except (ValueError, TypeError):  # a recipe may say anything
        return None
    same = found is not None and found.digest == digest and found.layout == bundle.layout
    return found if same else None


def _remembered(kept: OrderedDict[Any, Any], key: Any, make: Any) -> Any:
    """What is kept under the key, made if need be; of all of them the last few are kept."""
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    while len(kept) > KEPT:
        kept.popitem(last=False)
    return kept[key]
