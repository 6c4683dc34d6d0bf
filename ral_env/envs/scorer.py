"""Scorer: what the networks make of finished canvases: images, scores and likelihoods."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ral_env import picture, reward, starts
from ral_env.bundle import Bundle
from ral_env.envs.options import check_codes, choose, integers
from ral_env.envs.reward_fn import RewardFunction
from ral_env.envs.shapes import Nats, Pictures, Rows
from ral_env.nets import joint, represent
from ral_env.nets.shapes import Grids, ScoreMap
from ral_env.reward import CellScores

Net = TypeVar("Net", bound=nn.Module)


def frozen_copy(net: Net, device: torch.device) -> Net:
    """A copy in eval mode: training the original changes nothing that the copy computes."""
    return copy.deepcopy(net).to(device).eval()


class Scorer:
    """Turns flat codes into images and into a discriminator's scores.

    It works with copies of the bundle's codec, discriminator and oracles. All methods take finished
    canvases, integers (B, length), of one height: the first ``rows`` rows of the coarsest grid hold
    codes, with the finer rows beneath them, and all other cells are OUTSIDE. Wherever a cell is
    EMPTY, or heights differ, they raise a ValueError.

    Args:
        bundle: the networks, the layout and the size of images.
        device: where the networks run.
        reward_fn: what pays in place of the discriminator, if anything does.

    Attributes:
        discriminator: the net that scores.
        discriminator_input: what it sees: "image" or "codes" (codebook vectors).
        reward_scale: its scores are divided by it, then clamped to [-1, 1].
        stride: cells of that input (pixels or codes) to one cell of the score map.
        min_rows: fewest coarsest rows that it can score.
        has_oracles: whether the true distribution of the codes is known.
    """

    discriminator: nn.Module
    discriminator_input: str
    reward_scale: float
    stride: int
    min_rows: int

    def __init__(
        self, bundle: Bundle, device: torch.device, reward_fn: RewardFunction | None = None
    ):
        self.reward_fn = reward_fn
        self.layout, self.image_size, self.device = bundle.layout, bundle.image_size, device
        self.codec: Any = frozen_copy(bundle.vqvae, device)
        self._oracles: list[Any] = [frozen_copy(oracle, device) for oracle in bundle.oracles]
        self.has_oracles = bool(self._oracles)
        self.set_discriminator(
            bundle.discriminator, bundle.reward_scale, bundle.discriminator_input
        )

    def set_discriminator(self, net: nn.Module, reward_scale: float, input: str) -> None:
        """Score with a copy of ``net`` from now on.

        Args:
            net: maps its input (B, C, H, W) to a score map (B, 1, H // stride, W // stride), real
                is high, and has the attribute ``stride``, an int.
            reward_scale: scores are divided by it, then clamped to [-1, 1].
            input: "image", or "codes" (codebook vectors on the finest grid).

        Raises:
            ValueError: if the scale is not positive, the input is unknown, or the net's stride is
                larger than the whole image.
        """
        extent = self._side(choose("input", input, ("image", "codes")))
        stride = getattr(net, "stride", None)
        if not isinstance(stride, int) or not 1 <= stride <= extent:
            raise ValueError(
                f"the discriminator's stride is {stride}, expected 1 to {extent}: the {extent} "
                f"rows of the {input} input must give one row of scores or more"
            )
        self._set_scale(reward_scale)
        self.discriminator = frozen_copy(net, self.device)
        self.discriminator_input, self.stride = input, stride
        self.min_rows = starts.min_rows(stride, extent // self.layout.rows)

    def load_discriminator(self, state_dict: Mapping[str, Tensor], reward_scale: float) -> None:
        """Load other weights into the present discriminator.

        Raises:
            ValueError: if the weights do not fit, or the scale is not positive.
        """
        self._set_scale(reward_scale)
        try:
            self.discriminator.load_state_dict(state_dict)
        except RuntimeError as error:
            raise ValueError(f"these weights do not fit the discriminator: {error}") from error

    def _set_scale(self, scale: float) -> None:
        if not 0 < scale < float("inf"):
            raise ValueError(f"reward_scale={scale}, expected a positive finite number")
        self.reward_scale = float(scale)

    def _side(self, input: str) -> int:
        """Rows (and columns) of the whole canvas as the discriminator sees it: pixels or codes."""
        return self.image_size if input == "image" else self.layout.levels[-1][0]

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Compute apart from the caller: no gradients, no autocast, new tensors on our device."""
        no_autocast = torch.autocast(self.device.type, enabled=False)
        with torch.no_grad(), no_autocast, self.device:
            yield

    def images(self, codes: Any) -> Pictures:
        """Decoded images, uint8 (B, 3, H, W)."""
        with self.apart():
            return picture.to_bytes(self.codec.decode(self._grids(codes)))

    def score_map(self, codes: Any) -> ScoreMap:
        """The discriminator's score maps, float32 (B, 1, h', w'), not normalised; real is high."""
        with self.apart():
            inputs = represent(self.codec, self._grids(codes), self.discriminator_input)
            return self.discriminator(inputs).float()

    def score(self, codes: Any, score_map: ScoreMap | None = None) -> ScoreMap:
        """What canvases are paid by: normalised score maps (B, 1, h', w') in [-1, 1], real is high.

        With a ``reward_fn`` it is what that gives, as it is.

        Args:
            score_map: what :meth:`score_map` gives of these canvases, if it is known.

        Raises:
            ValueError: if a score is not finite, or the ``reward_fn`` gives what it may not.
        """
        if self.reward_fn is not None:
            with self.apart():
                return self.reward_fn(self.codec, self._grids(codes))
        return self.normalise(self.score_map(codes) if score_map is None else score_map)

    def normalise(self, score_map: ScoreMap) -> ScoreMap:
        """Scores divided by the reward scale and clamped to [-1, 1]."""
        return reward.normalise(score_map, self.reward_scale)

    def check_score_map(self, score_map: Any, heights: Rows) -> ScoreMap:
        """A score map that a caller has computed, on the device of the networks.

        Args:
            heights: int64 (B,), coarsest rows of the canvases that it is of.

        Raises:
            ValueError: if heights differ, or it is not a tensor of floats with the shape
                (B, 1, h', w') of :meth:`score_map`, or a ``reward_fn`` pays.
        """
        if self.reward_fn is not None:
            raise ValueError(
                f"score_map: got one, expected None: reward_fn {self.reward_fn.name} pays, not the "
                "discriminator"
            )
        if (heights != heights[0]).any():
            raise ValueError(
                f"score_map: got one of canvases of {np.unique(heights)} rows, expected one "
                "height: leave it out, and each height is scored by itself"
            )
        side = self._side(self.discriminator_input)
        rows = int(heights[0]) * (side // self.layout.rows) // self.stride
        shape = (len(heights), 1, rows, side // self.stride)
        is_float = isinstance(score_map, Tensor) and score_map.is_floating_point()
        if not is_float or tuple(score_map.shape) != shape:
            got = tuple(score_map.shape) if is_float else getattr(score_map, "dtype", score_map)
            raise ValueError(
                f"score_map: got {got}, expected a tensor of floats {shape}: what the "
                "discriminator says of these canvases, not normalised"
            )
        return score_map.detach().to(self.device, torch.float32)

    def cell_scores(self, score_map: ScoreMap, rows: int) -> CellScores:
        """The score at each cell of the first ``rows`` rows, (B, 1, h', w') -> (B, cells)."""
        grids = self.layout.grids(rows)
        strides = [self.cells_per_score(score_map, width) for _, width in grids]
        return reward.intermediate(score_map, grids, strides)

    def cells_per_score(self, score_map: ScoreMap, width: int) -> float:
        """Cells to one cell of a paid score map, of a grid that is ``width`` cells wide."""
        if self.reward_fn is not None:
            return width / score_map.shape[3]
        return self.stride * width / self._side(self.discriminator_input)

    def drop_oracles(self) -> None:
        """Know no true distribution from now on: infos then hold no ``nll_oracle``.

        For a learner that does not read it: oracles are larger than the priors that learn.
        """
        self._oracles, self.has_oracles = [], False

    def nll_oracle(self, codes: Any) -> Nats:
        """Negative log-likelihood of all codes under the oracles, in nats: float32 (B,)."""
        assert self.has_oracles
        with self.apart():
            return -joint.total_log_prob(self._oracles, self._grids(codes)).cpu().numpy()

    def _grids(self, codes: Any) -> Grids:
        """Flat codes to int64 tensors (B, h, w), one a level, cropped to the canvases' height."""
        codes = integers("codes", codes)
        if codes.ndim != 2:
            raise ValueError(f"codes: got shape {codes.shape}, expected (B, {self.layout.length})")
        heights = self.layout.heights(codes)
        grids = self.layout.unflatten(codes, int(heights[0]))
        for grid in grids:
            check_codes("codes of finished canvases of one height", grid, self.layout.num_codes)
        if (heights != heights[0]).any():
            raise ValueError(f"codes: canvases of {np.unique(heights)} rows, expected one height")
        return [torch.from_numpy(grid.astype(np.int64)).to(self.device) for grid in grids]
