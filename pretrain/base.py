"""A smaller bundle that a recipe builds on: its codes and priors stay, a larger decoder learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import nn

from pretrain.configs import Recipe
from pretrain.data import MADE
from ral_env import bundle
from ral_env.bundle import Bundle
from ral_env.nets import VQVAE


def load_base(recipe: Recipe, folder: str | None = None) -> Bundle | None:
    """The bundle that a recipe builds on; None if it builds on none.

    Args:
        recipe: Its ``base`` is the bundle's name or path.
        folder: Folder of the images, None if they are made.

    Raises:
        ValueError: If there is no such bundle (or it cannot be read), or the recipe does not fit
            it. Says of each setting that does not what was expected, as ``--set`` calls it.
    """
    if recipe.base is None:
        return None
    base = bundle.load(recipe.base)
    wrong = list(_misfits(recipe, base))
    if folder is None:
        wrong += _other_faces(recipe, base)
    if wrong:
        raise ValueError(
            f"recipe {recipe.name!r} does not fit its base, bundle {base.edition}: "
            f"{'; '.join(wrong)}. Change these settings (--set), or choose another base"
        )
    return base


def _misfits(recipe: Recipe, base: Bundle) -> Iterator[str]:
    """Which sizes of the recipe are not those of the base's nets."""
    vqvae, small = recipe.vqvae, base.vqvae.config
    yield from _differences("vqvae", vqvae, small, free=("image_size", "enlarge"))
    seen, expected = (config.image_size / config.enlarge for config in (vqvae, small))
    if seen != expected:
        yield (
            f"vqvae.image_size={vqvae.image_size} is averaged to {seen:g} pixels "
            f"(vqvae.enlarge={vqvae.enlarge}), expected {expected:g}, of which the base has codes"
        )
    elif vqvae.enlarge <= small.enlarge:
        yield (
            f"vqvae.enlarge={vqvae.enlarge}, expected more than the base's {small.enlarge}: images "
            "that are larger"
        )
    for level, (prior, theirs) in enumerate(zip(recipe.priors, base.priors, strict=False)):
        yield from _differences(f"priors.{level}", prior, theirs.config)
    nets = (base.vqvae, *base.priors)
    if recipe.half and not all(_has_16_bits(net) for net in nets):
        yield "half=True, expected False: the base's weights have 32 bits, and are kept as they are"


def _differences(name: str, ours: Any, theirs: Any, free: tuple[str, ...] = ()) -> Iterator[str]:
    for field in dataclasses.fields(theirs):
        mine, expected = getattr(ours, field.name), getattr(theirs, field.name)
        if field.name not in free and mine != expected:
            yield f"{name}.{field.name}={mine}, expected {expected}"


def _has_16_bits(net: nn.Module) -> bool:
    """Whether rounding a net's weights to 16 bits leaves them as they are."""
    weights = (value for value in net.state_dict().values() if value.is_floating_point())
    return all(value.equal(value.half().float()) for value in weights)


def _other_faces(recipe: Recipe, base: Bundle) -> Iterator[str]:
    """What would let the base's prior have learnt from faces that are held out now.

    A drawn image is the same at every size, and which are held out depends on how many there are.
    """
    made = base.recipe
    same = recipe.source in MADE and recipe.source == made.get("source")
    if same and "--data" not in made.get("command", "") and made.get("count") != recipe.count:
        yield (
            f"count={recipe.count}, expected {made.get('count')}: its prior would have learnt from "
            "images that are held out here"
        )


def begin_from(net: VQVAE, base: VQVAE) -> None:
    """Give a new VQ-VAE the weights of its base; what makes its codes learns no more.

    The encoder, the codebooks, and all of the decoder but its last stage are copied: that stage
    leads to pixels, and at this resolution to further stages.

    Args:
        net: Changed in place; its config is the base's but for image_size and a larger enlarge.
        base: The smaller one.
    """
    last = f"decoder.{len(base.decoder) - 1}."
    weights = base.state_dict().items()
    net.load_state_dict({k: v for k, v in weights if not k.startswith(last)}, strict=False)
    freeze_codes(net)


def freeze_codes(net: VQVAE) -> None:
    """Let a VQ-VAE's decoder alone have gradients."""
    net.requires_grad_(False)
    for decodes in (net.decoder, net.enlarge):
        decodes.requires_grad_(True)


def provenance(base: Bundle) -> dict[str, Any]:
    """What a bundle's manifest says of its base, as fields of its recipe."""
    of = {"edition": base.edition, "digest": base.digest, "dataset": base.dataset}
    return {"base": base.name, "enlarged_from": of | {"recipe": dict(base.recipe)}}
