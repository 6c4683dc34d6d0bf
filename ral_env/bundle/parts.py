"""What a bundle is: the parts that an environment is made of, and nothing about files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np

from ral_env.bundle.manifest import checksum
from ral_env.bundle.packing import PackedCodes
from ral_env.layout import CodeLayout

if TYPE_CHECKING:  # names of parts: what they are is loaded with them
    from ral_env.nets import VQVAE, FeatureNet, Mixture, PatchGAN, PixelCNN

TUNING = "tuning"  # a split of bundles of format 4 whose maker set it aside

T = TypeVar("T")


@dataclass(frozen=True)
class Later(Generic[T]):
    """A part that is made when it is first asked for, by a function without arguments."""

    make: Callable[[], T]


class Part(Generic[T]):
    """A field of :class:`Bundle` that may be given as a :class:`Later`.

    Args:
        default: what the field is where it is not given; without a default it must be given.
    """

    def __init__(self, *default: T | Later[T]):
        self._default = cast(tuple[T, ...], default)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, bundle: Bundle | None, owner: type) -> T:
        if bundle is None:  # dataclass asks for the default
            if not self._default:
                raise AttributeError(self._name)
            return self._default[0]
        value = vars(bundle)[self._name]
        if isinstance(value, Later):
            value = vars(bundle)[self._name] = value.make()
        return value

    def __set__(self, bundle: Bundle, value: T | Later[T]) -> None:
        vars(bundle)[self._name] = value


@dataclass(frozen=True)
class StoredFeatures:
    """Features of real canvases, for distances that need more of them than a bundle has codes.

    Args:
        values: float16 or float32 (n, features), finite; a memory map where it was read from disk.
            They are of real codes *decoded*, as samples are: features of images as they were before
            they were encoded are at a distance from those, however good a sample is.
        of: what they are of, in words: which canvases, and how many.
    """

    values: np.ndarray
    of: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Bundle:
    """All that an environment is made of. Nets are on the CPU, in eval mode.

    ``ral_env.bundle.load`` reads one from a folder: its nets and codes are read when they are first
    asked for. ``ral_env.bundle.custom.assemble`` checks parts of any make and puts them together.
    ``dataclasses.replace(bundle, priors=..., discriminator=...)`` is the same bundle with other
    parts; like every bundle that was not read from a folder it has neither ``path`` nor
    ``manifest``.

    Attributes:
        vqvae: codes to images and back: a :class:`ral_env.nets.VQVAE`, or in a bundle that was
            assembled any :class:`ral_env.nets.Codec`.
        discriminator: maps what it sees, float32 (B, C, H, W), to a score map (B, 1, H // stride,
            W // stride); real is high. It has the attribute ``stride``.
        discriminator_input: what it sees: ``"image"``, float32 (B, 3, H, W) in [-1, 1]; or
            ``"codes"``, the vectors of all levels' codes on the finest grid.
        reward_scale: divides its scores before they are clamped to [-1, 1]; above 0.
        other_discriminators: by what they see, discriminators that environments do not score with
            unless they are told to, each with its reward scale. :meth:`discriminator_for` takes the
            one above before one of these.
        priors: the pretrained distribution of the codes, one :class:`ral_env.nets.Prior` per
            level, top (coarsest) first. Empty if there are none: nothing can be sampled then.
        policies: priors that were fine-tuned, one per level, top first; empty if there are none.
        oracles: the true distribution of the codes, one per level, top first; empty if not known.
        feature_nets: by name, the nets in whose features Fréchet distances are taken. ``"labels"``
            was trained to tell what is known of the images (classes or attributes), another name
            says how that net was trained. :attr:`features` is the first.
        test_features: by name of a feature net, stored features of decoded test codes.
            They belong to that net's weights: replace both or neither.
        flat_codes: real codes (N, length), uint8 or uint16: all levels in one row, top first. A
            numpy array, or :class:`ral_env.bundle.packing.PackedCodes`, which takes its place.
        splits: the first row of ``flat_codes`` and the row after the last, for ``"train"``,
            ``"validation"`` (when to stop training), ``"test"`` (figures that are reported, and
            nothing else) and, where there is one, ``"tuning"`` (every search, preset, gate and
            temperature).
        layout: how the levels' grids lie in a row of ``flat_codes``.
        image_size: side of the square image, in pixels.
        dataset: what the nets were trained on, in words.
        recipe: the settings that made it.
        version: what its maker calls this edition of it, e.g. ``"1"``; empty if nobody said.
        name: what messages call it: the folder's name where it was read from one.
        path: the folder that it was read from, else None.
        manifest: that folder's ``manifest.json``, else empty.
    """

    vqvae: Part[VQVAE] = Part()
    discriminator: Part[PatchGAN] = Part()
    discriminator_input: str = "image"
    reward_scale: float = 1.0
    other_discriminators: Part[Mapping[str, tuple[PatchGAN, float]]] = Part(Later(dict))
    priors: Part[tuple[PixelCNN, ...]] = Part(())
    policies: Part[tuple[PixelCNN, ...]] = Part(())
    oracles: Part[tuple[PixelCNN | Mixture, ...]] = Part(())
    feature_nets: Part[Mapping[str, FeatureNet]] = Part(Later(dict))
    test_features: Part[Mapping[str, StoredFeatures]] = Part(Later(dict))
    flat_codes: Part[np.ndarray] = Part()
    splits: Mapping[str, tuple[int, int]]
    layout: CodeLayout
    image_size: int
    dataset: str
    recipe: Part[Mapping[str, Any]] = Part()
    version: str = ""
    name: str = "in memory"
    path: Path | None = field(default=None, init=False)
    manifest: dict[str, Any] = field(default_factory=dict, init=False)

    def __repr__(self) -> str:
        where = str(self.path or self.name)
        return f"Bundle({where!r}, dataset={self.dataset!r}, layout={self.layout})"

    @property
    def codes(self) -> tuple[np.ndarray, ...]:
        """Real codes, a grid (N, h, w) per level, top first, uint8 or uint16.

        All of them are unpacked where they are stored packed.
        """
        return tuple(self.layout.unflatten(np.asarray(self.flat_codes)))

    @property
    def features(self) -> FeatureNet | None:
        """The first of the feature nets; None if there is none."""
        return next(iter(self.feature_nets.values()), None)

    @property
    def digest(self) -> str | None:
        """SHA-256 of the manifest, which holds that of every file; None if not read from a folder.

        Two bundles with the same digest are the same.
        """
        return checksum(self.manifest) if self.manifest else None

    @property
    def edition(self) -> str:
        """Name, version and the digest's first twelve digits: what is printed with every score."""
        return " ".join(filter(None, (self.name, self.version, (self.digest or "")[:12])))

    @property
    def tuning_split(self) -> str:
        """Name of the split to tune on: ``"tuning"``, or ``"validation"`` where there is none.

        What was tuned on the validation split is reported with that word: priors stopped training
        by it, too.
        """
        return TUNING if TUNING in self.splits else "validation"

    def split(self, name: str) -> np.ndarray:
        """Flat real codes (n, length) of one of :attr:`splits`.

        Raises:
            ValueError: if there is no split of that name. A bundle of format 2 or 3 has no
                ``"tuning"``, and no other split passes for it: :attr:`tuning_split` names the one
                to use instead.
        """
        if name not in self.splits:
            hint = ""
            if name == TUNING:
                hint = ": tune on its 'validation' (bundle.tuning_split says so), or make it again"
            raise ValueError(f"split {name!r}, expected one of {list(self.splits)}{hint}")
        start, end = self.splits[name]
        return self.flat_codes[start:end]

    def discriminator_for(self, input: str) -> tuple[PatchGAN, float]:
        """The discriminator that sees ``input``, and its reward scale.

        Args:
            input: ``"image"`` or ``"codes"``.

        Raises:
            ValueError: if the bundle has none that does.
        """
        if input == self.discriminator_input:
            return self.discriminator, self.reward_scale
        if input not in self.other_discriminators:
            raise ValueError(
                f"{self!r} has no discriminator that sees {input!r}, only one that sees "
                f"{' and one that sees '.join(map(repr, self.discriminator_inputs))}"
            )
        return self.other_discriminators[input]

    @property
    def discriminator_inputs(self) -> tuple[str, ...]:
        """What :meth:`discriminator_for` can be asked for, the default first."""
        return tuple(dict.fromkeys([self.discriminator_input, *self.other_discriminators]))


def from_nets(
    *,
    vqvae: VQVAE,
    priors: Sequence[PixelCNN],
    codes: np.ndarray | Sequence[np.ndarray],
    oracles: Sequence[PixelCNN | Mixture] = (),
    policies: Sequence[PixelCNN] = (),
    features: FeatureNet | None = None,
    **parts: Any,
) -> Bundle:
    """A bundle of trained nets, whose layout and image size are those of the VQ-VAE.

    Args:
        vqvae: the tokeniser.
        priors: the pretrained distribution of the codes, one net per level, top first.
        codes: real codes, flat (N, length) or a list of grids (N, h, w), one per level, top first.
        oracles: the true distribution of the codes, where it is known, one net per level.
        policies: priors that were fine-tuned, one net per level.
        features: a feature net that was trained on labels or attributes, the only one there is:
            the same as ``feature_nets={"labels": features}``.
        parts: the other fields of :class:`Bundle`.
    """
    layout = CodeLayout(vqvae.config.grids, vqvae.config.num_codes)
    whole = getattr(codes, "ndim", 0) == 2
    flat = codes if whole else layout.flatten([*map(np.asarray, codes)])
    if features is not None:
        if "feature_nets" in parts:
            raise TypeError("both features and feature_nets given: put all into feature_nets")
        parts["feature_nets"] = {"labels": features}
    return Bundle(
        vqvae=vqvae,
        priors=tuple(priors),
        oracles=tuple(oracles),
        policies=tuple(policies),
        flat_codes=cast(Any, flat if isinstance(flat, PackedCodes) else np.asarray(flat)),
        layout=layout,
        image_size=vqvae.config.image_size,
        **parts,
    )
