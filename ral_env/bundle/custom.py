"""Your own model: a bundle of a decoder and priors that this project did not train.

:func:`assemble` takes the parts, checks that they do what an episode needs of them, and returns a
bundle that everything takes which takes one from disk. See docs/your-own-model.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ral_env.bundle.limits import SPLITS
from ral_env.bundle.packing import codes_dtype
from ral_env.bundle.parts import TUNING, Bundle
from ral_env.layout import CodeLayout
from ral_env.migrations import old_names
from ral_env.nets import Codec, Prior, UncachedPrior, represent

__all__ = ["Codec", "Prior", "UncachedPrior", "assemble"]

MAX_SUMMED = 1024  # codes whose probabilities are added up, at most

__getattr__ = old_names(__name__)


def assemble(
    *,
    codec: Codec,
    discriminator: nn.Module,
    codes: Any,
    num_codes: int,
    priors: Sequence[Prior] = (),
    splits: Mapping[str, Sequence[int]] | None = None,
    dataset: str = "own images",
    discriminator_input: str = "image",
    reward_scale: float = 1.0,
    oracles: Sequence[Prior] = (),
    policies: Sequence[Prior] = (),
    other_discriminators: Mapping[str, tuple[nn.Module, float]] | None = None,
    feature_nets: Mapping[str, Any] | None = None,
) -> Bundle:
    """A bundle of parts of any make, checked against each other on a few real codes.

    All nets are modules on the CPU, and are put in eval mode; environments work with copies.

    Args:
        codec: maps codes to images; see :class:`Codec`.
        discriminator: maps images (B, 3, H, W) to a score map (B, 1, H // stride, W // stride),
            real is high, and has the attribute ``stride``, an int: pixels from score to score.
        codes: real codes, integers (N, h, w), one grid per level, the coarsest first; a single
            level may come without a list. Grids are square, finer ones whole multiples of the
            coarsest.
        num_codes: number of entries of the codebook, the same on every level.
        priors: one per level, the coarsest first, or none: then nothing can be sampled or trained.
        splits: ``{"train": (start, end), "validation": ..., "test": ...}``, rows of ``codes``, and
            at will ``"tuning"``; by default, train, validation and test are eight, one and one
            tenth of them.
        dataset: what the codes are of, in words.
        discriminator_input: ``"image"``, or ``"codes"`` if the discriminator sees the vectors that
            the codec's ``lookup`` gives, on the finest grid.
        reward_scale: divides scores before they are clamped to [-1, 1].
        oracles: the true distribution of the codes, where it is known, one per level.
        policies: priors that were fine-tuned, one per level, or none.
        other_discriminators: by input, ``"image"`` or ``"codes"``, discriminators that environments
            do not score with unless they are told to, each with its reward scale.
        feature_nets: by name, modules with ``features(images)``, float32 (B, d) of images
            (B, 3, H, W): Fréchet distances are taken in the first one's space.

    Raises:
        ValueError: if a part does not do what is needed of it.
    """
    layout, flat = _flatten(codes, num_codes)
    ranges = _check_splits(splits, len(flat))
    others, features = dict(other_discriminators or {}), dict(feature_nets or {})
    discriminators = {**others, discriminator_input: (discriminator, reward_scale)}
    kinds = {"priors": priors, "oracles": oracles, "policies": policies}
    _check_nets(layout, {"codec": codec, "discriminator": discriminator}, others, features, kinds)
    start, end = ranges["train"]
    real = torch.from_numpy(flat[start : min(end, start + 2)].astype(np.int64))
    # Whole canvases, and the upper half of them.
    pair = [layout.unflatten(real, rows) for rows in (layout.rows, max(1, layout.rows // 2))]
    with torch.no_grad():
        image_size = _check_codec(codec, pair)
        for input, (net, scale) in discriminators.items():
            _check_discriminator(net, scale, codec, input, pair)
        for name, net in features.items():
            _check_features(name, net, codec.decode(pair[0]))
        _check_priors(layout, kinds, real, pair)
    return Bundle(
        vqvae=cast(Any, codec),
        discriminator=cast(Any, discriminator),
        priors=cast(Any, tuple(priors)),
        oracles=cast(Any, tuple(oracles)),
        policies=cast(Any, tuple(policies)),
        other_discriminators=cast(Any, others),
        feature_nets=features,
        discriminator_input=discriminator_input,
        reward_scale=float(reward_scale),
        flat_codes=flat,
        splits=ranges,
        layout=layout,
        image_size=image_size,
        dataset=dataset,
        recipe={},
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _call(what: str, function: Callable[..., Any], *arguments: Any) -> Tensor:
    """Call a method of one of the parts; an error tells what it was given."""
    try:
        found = function(*arguments)
    except Exception as error:
        raise ValueError(f"{what} failed: {error!r}") from error
    _require(isinstance(found, Tensor), f"{what} gave a {type(found).__name__}, expected a tensor")
    return found


def _shapes(grids: Sequence[Tensor]) -> str:
    return " + ".join(str(tuple(grid.shape)) for grid in grids)


def _check_splits(
    splits: Mapping[str, Sequence[int]] | None, count: int
) -> dict[str, tuple[int, int]]:
    """The splits of ``count`` rows that are given, or else eight, one and one tenth of them."""
    if splits is None:
        edges = (0, count * 8 // 10, count * 9 // 10, count)
        splits = dict(zip(SPLITS, pairwise(edges), strict=True))
    _require(
        set(splits) - {TUNING} == set(SPLITS)
        and all(0 <= a < b <= count for a, b in splits.values()),
        f"splits are {splits}, expected {SPLITS} and, at will, {TUNING!r}, each (start, end) of "
        f"one row or more of the {count} canvases of codes",
    )
    return {name: (first, end) for name, (first, end) in splits.items()}


def _flatten(codes: Any, num_codes: int) -> tuple[CodeLayout, np.ndarray]:
    """The layout of real codes, and the codes as a bundle holds them: (N, length), unsigned."""
    grids = [np.asarray(g) for g in (codes if isinstance(codes, list | tuple) else [codes])]
    shapes = [f"{grid.dtype} {grid.shape}" for grid in grids]
    _require(
        all(g.ndim == 3 and len(g) and np.issubdtype(g.dtype, np.integer) for g in grids)
        and len({len(grid) for grid in grids}) == 1,
        f"codes are {shapes}, expected integers (N, h, w), one grid per level, with one N of 1 or "
        "more",
    )
    layout = CodeLayout(tuple(grid.shape[1:] for grid in grids), num_codes)
    _require(
        all(h == w for h, w in layout.levels), f"codes have grids {layout.levels}, expected h == w"
    )
    flat = layout.flatten(grids)
    low, high = flat.min(), flat.max()
    _require(
        low >= 0 and high < num_codes,
        f"codes run from {low} to {high}, expected 0 to {num_codes - 1} (num_codes={num_codes})",
    )
    return layout, flat.astype(codes_dtype(num_codes))


def _check_nets(
    layout: CodeLayout,
    nets: Mapping[str, Any],
    others: Mapping[str, tuple[nn.Module, float]],
    features: Mapping[str, Any],
    kinds: Mapping[str, Sequence[Prior]],
) -> None:
    """There is one prior per level, and all nets are modules; puts them in eval mode."""
    nets = {**nets}
    nets |= {f"other_discriminators[{input!r}]": net for input, (net, _) in others.items()}
    nets |= {f"feature_nets[{name!r}]": net for name, net in features.items()}
    for kind, per_level in kinds.items():
        _require(
            len(per_level) in (0, len(layout.levels)),
            f"{len(per_level)} {kind} for {len(layout.levels)} levels, expected one per level, or "
            "none",
        )
        nets |= {f"{kind}[{level}]": net for level, net in enumerate(per_level)}
    for name, net in nets.items():
        _require(
            isinstance(net, nn.Module),
            f"{name} is a {type(net).__name__}, expected a torch.nn.Module: environments copy it",
        )
        net.eval()


def _check_codec(codec: Codec, pair: Sequence[Sequence[Tensor]]) -> int:
    """It decodes whole canvases and the upper halves of them. Returns an image's side in pixels."""
    _require(
        isinstance(codec, Codec),
        f"{type(codec).__name__} has no decode(codes): see ral_env.bundle.custom",
    )
    side = 0
    for grids in pair:
        what = f"codec.decode of codes {_shapes(grids)}"
        if side:
            what += " (fewer rows: if it can't, fill them up and cut the image)"
        images = _call(what, codec.decode, grids)
        side = side or images.shape[-1]
        height = side * grids[0].shape[1] // pair[0][0].shape[1]
        expected = (len(grids[0]), 3, height, side)
        _require(
            images.shape == expected and images.dtype == torch.float32,
            f"{what} gave {images.dtype} {tuple(images.shape)}, expected torch.float32 {expected}",
        )
        _require(
            side % grids[-1].shape[2] == 0,
            f"{what} gave images {side} pixels wide, expected a multiple of {grids[-1].shape[2]}",
        )
        low, high = images.min().item(), images.max().item()
        _require(
            -1.001 <= low <= high <= 1.001,  # NaN fails too
            f"{what} gave values from {low:.3g} to {high:.3g}, expected -1 to 1: "
            "rescale or clamp them",
        )
    return side


def _check_discriminator(
    net: nn.Module, scale: float, codec: Codec, kind: str, pair: Sequence[Sequence[Tensor]]
) -> None:
    """It scores whole canvases, and the upper halves of them if those are large enough."""
    _require(0 < scale < float("inf"), f"reward_scale={scale}, expected above 0")
    stride: Any = getattr(net, "stride", None)
    _require(
        isinstance(stride, int) and stride >= 1,
        f"discriminator.stride is {stride!r}, expected an int of 1 or more: {kind} cells from one "
        "score to the next",
    )
    for grids in pair:
        shown = represent(codec, grids, kind)
        if shown.shape[2] < stride:
            continue
        what = f"the discriminator, given {tuple(shown.shape)},"
        expected = (len(shown), 1, shown.shape[2] // stride, shown.shape[3] // stride)
        scores = _call(what, net, shown)
        _require(
            scores.shape == expected and bool(scores.isfinite().all()),
            f"{what} gave {tuple(scores.shape)}, expected finite scores {expected}: its stride is "
            f"{stride}",
        )


def _check_features(name: str, net: Any, images: Tensor) -> None:
    """It gives a vector of features to every image."""
    _require(hasattr(net, "features"), f"feature_nets[{name!r}] has no features(images)")
    what = f"feature_nets[{name!r}].features of images {tuple(images.shape)}"
    found = _call(what, net.features, images)
    _require(
        found.dim() == 2 and len(found) == len(images) and bool(found.isfinite().all()),
        f"{what} gave {tuple(found.shape)}, expected finite features ({len(images)}, d)",
    )


def _check_priors(
    layout: CodeLayout,
    kinds: Mapping[str, Sequence[Prior]],
    real: Tensor,
    pair: Sequence[Sequence[Tensor]],
) -> None:
    """Priors of every kind and level do what an episode needs of them."""
    for kind, nets in kinds.items():
        for level, net in enumerate(nets):
            check = _PriorCheck(f"{kind}[{level}]", net, level, layout.num_codes)
            check.log_prob(*pair)
            check.order(pair[0])
            check.probabilities(layout.unflatten(real[:1], 1))
            if kind != "oracles":  # which no episode samples
                check.sample(*pair)


class _PriorCheck:
    """What an episode needs of a level's prior, tried on real codes.

    ``grids``, ``whole`` and ``upper`` are codes (B, h, w) of all levels; ``upper`` is the upper
    half of ``whole``.
    """

    def __init__(self, name: str, prior: Prior, level: int, num_codes: int):
        _require(
            isinstance(prior, Prior),
            f"{name} is a {type(prior).__name__} without log_prob or sample: UncachedPrior makes a "
            "prior of a net that has only logits",
        )
        self.name, self.prior, self.level, self.num_codes = name, prior, level, num_codes

    def log_prob(self, whole: Sequence[Tensor], upper: Sequence[Tensor]) -> None:
        """It gives every code a log-probability, in the upper half without the lower one too."""
        of_whole, of_upper = (self._log_prob(*self._inputs(grids)) for grids in (whole, upper))
        if not self.level:
            # A finer level may look around in the level above, which then ends with the rows.
            self._expect_same(
                of_whole[:, : of_upper.shape[1]], of_upper, "the rows below are not there"
            )

    def order(self, grids: Sequence[Tensor]) -> None:
        """No code's log-probability depends on codes after it."""
        codes, above = self._inputs(grids)
        middle = codes[0].numel() // 2
        changed = codes.flatten(1).clone()
        changed[:, middle:] = (changed[:, middle:] + 1) % self.num_codes
        before, after = (
            self._log_prob(c, above).flatten(1)[:, :middle] for c in (codes, changed.view_as(codes))
        )
        self._expect_same(before, after, "only codes after them differ, in raster order")

    def probabilities(self, grids: Sequence[Tensor]) -> None:
        """The probabilities of what one cell can hold add up to 1: the cell does not see itself."""
        codes, above = self._inputs(grids)
        count = min(self.num_codes, MAX_SUMMED)
        cell = codes[0].numel() // 2
        flat = codes.flatten(1).repeat(count, 1)
        flat[:, cell] = torch.arange(count)
        above = None if above is None else above.expand(count, -1, -1)
        found = self._log_prob(flat.unflatten(1, codes.shape[1:]), above).flatten(1)[:, cell]
        total = found.double().exp().sum().item()
        _require(
            total <= 1.001 and (count < self.num_codes or total >= 0.999),
            f"{self.name}: the probabilities of the first {count} of {self.num_codes} codes in one "
            f"cell add up to {total:.4g}, expected "
            f"{'1' if count == self.num_codes else 'at most 1'}: does a cell see its own code?",
        )

    def sample(self, whole: Sequence[Tensor], upper: Sequence[Tensor]) -> None:
        """It writes the EMPTY cells, leaves the others, and gives the same for the same seed."""
        for grids in (whole, upper):
            codes, above = self._inputs(grids)
            prefix = codes.clone()
            prefix[:, -1] = self.num_codes  # one row: an uncached prior is slow
            what = f"{self.name}.sample of a prefix {tuple(prefix.shape)}"
            found, again = (self._sample(what, prefix.clone(), above) for _ in range(2))
            _require(
                found.shape == prefix.shape and found.dtype == torch.int64,
                f"{what} gave {found.dtype} {tuple(found.shape)}, expected torch.int64 "
                f"{tuple(prefix.shape)}",
            )
            _require(
                torch.equal(found[:, :-1], codes[:, :-1]),
                f"{what} changed codes that were given, expected it to write EMPTY cells only",
            )
            written = found[:, -1]
            _require(
                0 <= int(written.min()) <= int(written.max()) < self.num_codes,
                f"{what} wrote codes from {int(written.min())} to {int(written.max())}, expected 0 "
                f"to {self.num_codes - 1} in every cell that held EMPTY ({self.num_codes})",
            )
            _require(
                torch.equal(found, again),
                f"{what} gave other codes with the same seed: take all randomness from `generator`",
            )

    def _inputs(self, grids: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """This level's codes, and those of the level above."""
        return grids[self.level], grids[self.level - 1] if self.level else None

    def _log_prob(self, codes: Tensor, above: Tensor | None) -> Tensor:
        what = f"{self.name}.log_prob of codes {tuple(codes.shape)}"
        found = _call(what, self.prior.log_prob, codes, above)
        _require(
            found.shape == codes.shape,
            f"{what} gave {tuple(found.shape)}, expected {tuple(codes.shape)}: of every code",
        )
        _require(
            bool((found <= 1e-4).all()),  # NaN fails too
            f"{what} gave values up to {found.max().item():.3g}, expected 0 or less: natural logs",
        )
        return found

    def _sample(self, what: str, prefix: Tensor, above: Tensor | None) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return _call(what, self.prior.sample, prefix, above, 1.0, generator)

    def _expect_same(self, one: Tensor, other: Tensor, where: str) -> None:
        worst = (one - other).abs().max().item() if one.numel() else 0.0
        _require(
            worst <= 1e-3,
            f"{self.name}.log_prob of the same codes differs by {worst:.3g} where {where}: a code "
            "may depend on those before it only (is there a causal mask?)",
        )
