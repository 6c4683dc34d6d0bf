"""Every environment id: which images, which grids of codes, which bundle. Loads nothing."""

from __future__ import annotations

from dataclasses import dataclass

from gymnasium.envs.registration import registry


@dataclass(frozen=True)
class Task:
    """What an environment id stands for.

    Args:
        id: of the environment.
        image_size: side of the square image, in pixels.
        levels: (h, w) of each code grid, top first.
        num_codes: entries of each level's codebook.
        images: the data set that the id is named after.
        bundle: name of the bundle that is trained on those images.
        stand_in: name of a shipped bundle of the same shape, on which the id runs until there is
            the other; None where the bundle itself ships.
        about: what it is for, in a sentence or two; ``paper`` what the paper reports of it.
    """

    id: str
    image_size: int
    levels: tuple[tuple[int, int], ...]
    num_codes: int
    images: str
    bundle: str
    stand_in: str | None
    about: str
    paper: str = ""

    @property
    def grids(self) -> str:
        """The levels in words: ``16x16 + 32x32``."""
        return " + ".join(f"{h}x{w}" for h, w in self.levels)


def expect_ours(env: str) -> None:
    """Refuse the id of another project's environment; what nobody knows is left to Gymnasium.

    Raises:
        ValueError: if it is another's.
    """
    spec = registry.get(env.rpartition(":")[2])
    if spec is not None and not str(spec.entry_point).startswith("ral_env."):
        raise ValueError(
            f"env={env!r} is no environment of codes ({spec.entry_point}), expected one that "
            "`ral envs` lists, or RALBundle-v0"
        )


def _square(*sides: int) -> tuple[tuple[int, int], ...]:
    return tuple((side, side) for side in sides)


_FID = "Fréchet Inception distance; in parentheses against reconstructed real images"

TASKS: dict[str, Task] = {
    task.id: task
    for task in (
        Task(
            "RALFaces32-v0", 32, _square(8), 64, "procedural faces", "faces32", None,
            "The default: drawn faces, endless data, runs anywhere at once.",
        ),
        Task(
            "RALMNIST-v0", 32, _square(8), 64, "MNIST", "mnist", None,
            "Real digits that everyone knows: 10,000 of MNIST's 70,000, not in the published split "
            "(LeCun, Cortes, Burges; CC BY-SA 3.0), with a black border of two pixels.",
        ),
        Task(
            "RALDigits-v0", 32, _square(8), 64, "handwritten digits", "digits", None,
            "Real data, and few of them: scikit-learn's 1,797 handwritten digits.",
        ),
        Task(
            "RALOracle-v0", 32, _square(8), 64, "samples of an oracle prior", "oracle", None,
            "The synthetic experiment: the codes are samples of an oracle prior that is known, so "
            "the final info holds the exact `nll_oracle`, in nats per canvas. Every canvas has one "
            "of eight hidden tints, which the oracle keeps to. The prior sees few cells at a time "
            "and may lose it on the way: the picture then changes its colour.",
            "The same experiment on CelebA at 64 pixels (Table 1): NLL_oracle of MLE 7.55, single "
            "reward 7.07, intermediate reward 7.05.",
        ),
        Task(
            "RALOracle16-v0", 64, _square(16), 64, "samples of an oracle prior", "oracle16", None,
            "The synthetic experiment with 256 codes a canvas: exposure bias grows with length.",
        ),
        Task(
            "RALOracleTwoLevel-v0", 64, _square(8, 16), 64, "samples of an oracle prior",
            "oracle-two-level", None,
            "The synthetic experiment with two levels: an oracle for the top grid, and one for the "
            "bottom grid given the top.",
        ),
        Task(
            "RALCelebA64-v0", 64, _square(8), 128, "CelebA", "celeba64", "faces64",
            "CelebA at 64 pixels, one prior.",
            f"Table 2 ({_FID}): MLE 5.35, single reward 3.24, intermediate reward 4.10.",
        ),
        Task(
            "RALCelebA128Top-v0", 128, _square(16), 512, "CelebA", "celeba128top", "faces128top",
            "CelebA at 128 pixels, one prior.",
            f"Supplement ({_FID}): MLE 18.01, single reward 16.91.",
        ),
        Task(
            "RALCelebA128-v0", 128, _square(16, 32), 512, "CelebA", "celeba128", "faces128",
            "CelebA at 128 pixels, two priors.",
            f"Table 2 ({_FID}): MLE 58.07 (21.28), single reward 49.24 (16.49), intermediate "
            "reward 51.91 (19.68). Table 11: sampling a batch of 16 took 102 s, with partial "
            "generation 61 s.",
        ),
        Task(
            "RALCelebA256-v0", 256, _square(32, 64), 512, "CelebA", "celeba256", "faces256",
            "CelebA at 256 pixels, two priors.",
            f"Table 2 ({_FID}): MLE 69.37 (55.11), single reward 66.44 (53.54), intermediate "
            "reward 64.72 (51.38). Table 11: sampling a batch of 16 took 170 s, with partial "
            "generation 123 s.",
        ),
        Task(
            "RALCelebAHQ512-v0", 512, _square(32, 64), 512, "CelebA-HQ", "celebahq512", "faces512",
            "CelebA-HQ at 512 pixels, two priors.",
            f"Supplement ({_FID}): MLE 34.93, single reward 32.14, intermediate reward 31.84.",
        ),
        Task(
            "RALBedroom64-v0", 64, _square(8), 512, "LSUN-bedroom", "bedroom64", "faces64wide",
            "LSUN-bedroom at 64 pixels, one prior over 8x8 codes.",
            f"Supplement ({_FID}): MLE 19.95, RAL 19.07.",
        ),
        Task(
            "RALBedroom64Fine-v0", 64, _square(16), 512, "LSUN-bedroom", "bedroom64fine",
            "faces64fine",
            "LSUN-bedroom at 64 pixels, one prior over 16x16 codes.",
            f"Supplement ({_FID}): MLE 15.90, RAL 11.47.",
        ),
        Task(
            "RALBedroom128Top-v0", 128, _square(16), 512, "LSUN-bedroom", "bedroom128top",
            "faces128top",
            "LSUN-bedroom at 128 pixels, one prior.",
            f"Supplement ({_FID}): MLE 23.53, RAL 18.96.",
        ),
        Task(
            "RALBedroom128-v0", 128, _square(16, 32), 512, "LSUN-bedroom", "bedroom128", "faces128",
            "LSUN-bedroom at 128 pixels, two priors.",
            f"Table 2 ({_FID}): MLE 47.77 (23.14), single reward 39.86 (19.37), intermediate "
            "reward 36.47 (16.06).",
        ),
    )
}  # fmt: skip
