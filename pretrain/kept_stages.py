"""Which stages of a run that was cut are kept when it goes on with other settings.

A stage depends on its own part of the recipe, on the images and the seed, and on the stages before
it. Where one of these is another now, it begins anew, and so does all that builds on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agents.training.optimise import FREE
from agents.training.run_folder import differences

BUNDLE = "bundle"  # the last stage


@dataclass(frozen=True)
class Stage:
    """What a stage depends on.

    Args:
        own: Its settings, by their names in config.json.
        after: The stages that it builds on.
    """

    own: Mapping[str, Any]
    after: tuple[str, ...] = ()


def stages(config: Mapping[str, Any]) -> dict[str, Stage]:
    """All stages of a run, in their order, by the names of their files.

    Args:
        config: What the run was asked for, as its config.json holds it.
    """
    recipe = config["recipe"]

    def own(*fields: str, **others: Any) -> dict[str, Any]:
        return {f"recipe.{field}": _learnt(recipe.get(field)) for field in fields} | others

    def levels(stage: str, after: tuple[str, ...]) -> dict[str, Stage]:
        nets, trainings = recipe.get(f"{stage}s", ()), recipe.get(f"{stage}_trainings", ())
        return {
            f"{stage}_{n}": Stage(
                {f"recipe.{stage}s.{n}": net, f"recipe.{stage}_trainings.{n}": _learnt(training)},
                after,
            )
            for n, (net, training) in enumerate(zip(nets, trainings, strict=False))
        }

    images = {name: config.get(name) for name in ("seed", "flip", "data_fingerprint")}
    base = {"base_digest": config.get("base_digest")}  # whatever its path
    found = {"vqvae": Stage(own("vqvae", "vqvae_training", "half", **images, **base))}
    nets: tuple[str, ...] = ()
    if recipe.get("features"):
        found["features"] = Stage(own("features", "feature_steps"), ("vqvae",))
        nets += ("features",)
    if recipe.get("selfsupervised"):
        found["selfsupervised"] = Stage(own("selfsupervised"), ("vqvae",))
        nets += ("selfsupervised",)
    found["distance"] = Stage({"inception": config.get("inception")}, ("vqvae", *nets[:1]))
    codes: tuple[str, ...] = ("vqvae",)
    if recipe.get("oracles"):
        found |= (oracles := levels("oracle", codes))
        codes = ("oracle_codes",)
        found["oracle_codes"] = Stage(own("oracle_samples"), tuple(oracles))
    priors = levels("prior", codes)
    if base["base_digest"]:  # it has them
        priors = {name: Stage(base) for name in priors}
    found |= priors
    discriminators = _discriminators(recipe, (*codes, *priors), own)
    found |= discriminators
    found[BUNDLE] = Stage(own("keep"), (*nets, "distance", *priors, *discriminators))
    return found


def _discriminators(recipe: Mapping[str, Any], after: tuple[str, ...], own: Any) -> dict[str, Any]:
    kind = recipe.get("discriminator_input")
    first = ("net", "training", "steps", "batch")
    fields = ["discriminator", *(f"discriminator_{field}" for field in first[1:])]
    found = {"discriminator": Stage(own("discriminator_input", "fakes", "spoilt", *fields), after)}
    if recipe.get("other_discriminator"):
        other = "codes" if kind == "image" else "image"
        found[f"discriminator_{other}"] = Stage(
            own("fakes", "spoilt", "other_discriminator"), after
        )
    return found


def _learnt(value: Any) -> Any:
    """A config without those settings of a training that change nothing of what is learnt."""
    if not isinstance(value, dict):
        return value
    return {name: inner for name, inner in value.items() if name not in FREE}


def changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[str]]:
    """The stages that are not kept, in their order, each with the reasons why.

    Args:
        was: What the run was asked for, as its config.json holds it.
        now: What it is asked for now.
    """
    # Early fingerprints said nothing of what is in the files: they are how today's begin.
    if now["data_fingerprint"].startswith(was["data_fingerprint"]):
        was = {**was, "data_fingerprint": now["data_fingerprint"]}
    before, after = stages(was), stages(now)
    found = {name: ["it is left out now"] for name in before if name not in after}
    for name, stage in after.items():
        if name not in before:
            found[name] = ["it was left out then"]
            continue
        reasons = differences(before[name].own, stage.own)
        reasons += [f"{other} is another" for other in stage.after if other in found]
        if reasons:
            found[name] = reasons
    return found
