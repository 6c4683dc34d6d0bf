"""What a bundle is: the parts that an environment is made of, and nothing about files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from ral_env.layout import CodeLayout
from ral_env.nets import VQVAE, FeatureNet, Mixture, PatchGAN, PixelCNN

SPLITS = ("train", "validation", "test")

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

    def __init__(self, *default: T):
        self._default = default

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
        priors: the pretrained distribution of the codes, one :class:`ral_env.nets.Prior` per
            level, top (coarsest) first. Empty if there are none: nothing can be sampled then.
        oracles: the true distribution of the codes, one per level, top first; empty if not known.
        features: the net in whose features Fréchet distances are taken; None if there is none.
        flat_codes: real codes (N, length), uint8 or uint16: all levels in one row, top first.
        splits: for ``"train"``, ``"validation"`` and ``"test"`` the first row of ``flat_codes`` and
            the row after the last.
        layout: how the levels' grids lie in a row of ``flat_codes``.
        image_size: side of the square image, in pixels.
        dataset: what the nets were trained on, in words.
        recipe: the settings that made it.
        name: what messages call it: the folder's name where it was read from one.
        path: the folder that it was read from, else None.
        manifest: that folder's ``manifest.json``, else empty.
    """

    vqvae: Part[VQVAE] = Part()
    discriminator: Part[PatchGAN] = Part()
    discriminator_input: str = "image"
    reward_scale: float = 1.0
    priors: Part[tuple[PixelCNN, ...]] = Part(())
    oracles: Part[tuple[PixelCNN | Mixture, ...]] = Part(())
    features: Part[FeatureNet | None] = Part(None)
    flat_codes: Part[np.ndarray] = Part()
    splits: Mapping[str, tuple[int, int]]
    layout: CodeLayout
    image_size: int
    dataset: str
    recipe: Part[Mapping[str, Any]] = Part()
    name: str = "in memory"
    path: Path | None = field(default=None, init=False)
    manifest: dict[str, Any] = field(default_factory=dict, init=False)

    def __repr__(self) -> str:
        where = str(self.path or self.name)
        return f"Bundle({where!r}, dataset={self.dataset!r}, layout={self.layout})"

    @property
    def codes(self) -> tuple[np.ndarray, ...]:
        """Real codes, a grid (N, h, w) per level, top first, uint8 or uint16."""
        return tuple(self.layout.unflatten(self.flat_codes))

    def split(self, name: str) -> np.ndarray:
        """Flat real codes (n, length) of ``"train"``, ``"validation"`` or ``"test"``.

        Raises:
            ValueError: if there is no split of that name.
        """
        if name not in self.splits:
            raise ValueError(f"split {name!r}, expected one of {list(self.splits)}")
        start, end = self.splits[name]
        return self.flat_codes[start:end]


def codes_dtype(num_codes: int) -> type[np.unsignedinteger]:
    """What codes are stored in: uint8 for up to 256 of them, else uint16."""
    return np.uint8 if num_codes <= 256 else np.uint16


def from_nets(
    *,
    vqvae: VQVAE,
    priors: Sequence[PixelCNN],
    codes: np.ndarray | Sequence[np.ndarray],
    oracles: Sequence[PixelCNN | Mixture] = (),
    **parts: Any,
) -> Bundle:
    """A bundle of trained nets, whose layout and image size are those of the VQ-VAE.

    Args:
        vqvae: the tokeniser.
        priors: the pretrained distribution of the codes, one net per level, top first.
        codes: real codes, flat (N, length) or a list of grids (N, h, w), one per level, top first.
        oracles: the true distribution of the codes, where it is known, one net per level.
        parts: the other fields of :class:`Bundle`.
    """
    layout = CodeLayout(vqvae.config.grids, vqvae.config.num_codes)
    flat = codes if getattr(codes, "ndim", 0) == 2 else layout.flatten([*map(np.asarray, codes)])
    return Bundle(
        vqvae=vqvae,
        priors=tuple(priors),
        oracles=tuple(oracles),
        flat_codes=np.asarray(flat),
        layout=layout,
        image_size=vqvae.config.image_size,
        **parts,
    )
