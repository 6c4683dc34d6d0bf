"""Episodes: all dynamics of a batch of canvases, without Gymnasium."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.utils import seeding

from ral_env import reward as rewards
from ral_env import starts
from ral_env.bundle import RealCodes
from ral_env.envs.scorer import Scorer
from ral_env.envs.shapes import Flags, Rows
from ral_env.nets.shapes import ScoreMap


class Episodes:
    """The episodes of a batch of canvases: how they begin, what is written, what that earns.

    Canvases need not be in step with each other. Methods take the indices ``which`` (k,) of the
    canvases that they are about.

    Args:
        count: canvases.
        scorer: images, scores and likelihoods of finished canvases.
        real: real codes (N, length), the rows of "continue" starts.
        reward: one of :data:`ral_env.reward.REWARDS`.
        source: one of :data:`ral_env.reward.REWARD_SOURCES`.

    Attributes:
        rngs: a generator for each canvas; :class:`LatentCanvasVectorEnv` says what it draws when.
        canvas: int16 (count, length), what is observed.
        mode: "full", "continue" or "scratch", object (count,).
        rows: int64 (count,), real rows of "continue", all rows of the others.
        time: int64 (count,), steps taken.
        steps: int64 (count,), steps of the whole episode; 0 before the first reset.
        order: int64 (count, length), of which the first ``steps`` are the cells to write, in order.
        given: bool (count, length), cells that are not written: real or OUTSIDE.
        rows_paid: int64 (count,), rows whose scores have been paid (reward "rowwise").
        step_rewards: float32 (count, length), what each step has been paid (reward "rowwise").
    """

    def __init__(self, count: int, scorer: Scorer, real: RealCodes, reward: str, source: str):
        self.scorer, self.layout, self._real = scorer, scorer.layout, real
        self._reward, self._source = reward, source
        self.rngs = [seeding.np_random()[0] for _ in range(count)]
        length = self.layout.length
        self.canvas = np.full((count, length), self.layout.outside, np.int16)
        self.mode = np.full(count, "", object)
        self.rows, self.time, self.steps = (np.zeros(count, np.int64) for _ in range(3))
        self.order = np.zeros((count, length), np.int64)
        self.given = np.zeros((count, length), bool)
        self.rows_paid = np.zeros(count, np.int64)
        self.step_rewards = np.zeros((count, length), np.float32)

    def begin(self, which: np.ndarray, start: str, rows: Any = None, codes: Any = None) -> None:
        """New episodes; the start that the first generator draws is that of all.

        Args:
            start, rows: see :func:`ral_env.starts.draw`.
            codes: integers (count, length) for "continue", or None: those of real images.
        """
        rngs = [self.rngs[i] for i in which]
        # All draw, though only the first's start is used: what a generator draws next has to depend
        # on its seed alone, not on who is first.
        drawn = [starts.draw(r, self.layout, start, rows, self.scorer.min_rows) for r in rngs]
        images = [int(rng.integers(len(self._real))) for rng in rngs]
        mode, rows = drawn[0]
        if codes is not None:
            real = codes[which]
        elif mode == "continue":
            real = self._real[images]
        else:  # no code is read: the memory map is left alone
            real = np.zeros((len(which), self.layout.length), np.int16)
        canvas = starts.canvas(self.layout, mode, rows, real)
        empty = canvas[0] == self.layout.empty  # one start: the same cells for all
        steps = int(empty.sum())
        self.canvas[which] = canvas
        self.mode[which], self.rows[which] = mode, rows
        self.time[which], self.steps[which] = 0, steps
        self.order[which, :steps] = np.flatnonzero(empty)
        self.given[which] = ~empty
        self.rows_paid[which], self.step_rewards[which] = 0, 0

    def over(self) -> Flags:
        """Which canvases are finished, bool (count,).

        Raises:
            ValueError: before the first reset.
        """
        if not self.steps.all():
            raise ValueError("the episode has not begun: call reset() first")
        return self.time == self.steps

    def heights(self) -> Rows:
        """Rows of each canvas's image, counted on the coarsest grid: int64 (count,)."""
        return np.where(self.mode == "scratch", self.rows, self.layout.rows)

    def given_rows(self) -> Rows:
        """Rows of each canvas that were given as real: int64 (count,)."""
        return np.where(self.mode == "continue", self.rows, 0)

    def write(self, which: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Write the next code (k,) of each canvas.

        Returns:
            What that pays at once, float64 (k,): under "rowwise" the row that it finishes, unless
            that is the last one, which :meth:`finish` pays.
        """
        cells = self.order[which, self.time[which]]
        self.canvas[which, cells] = codes
        self.time[which] += 1
        paid = np.zeros(len(which))
        if self._reward == "rowwise":
            ends = self.layout.band_ends[cells] & (self.time[which] < self.steps[which])
            rows = self.layout.bands[cells] + 1
            for row in np.unique(rows[ends]):
                group = ends & (rows == row)
                paid[group] = self._pay_rows(which[group], int(row))
        return paid

    def write_all(self, codes: np.ndarray) -> None:
        """Write all EMPTY cells of all canvases: codes (count, length)."""
        self.canvas[:] = codes
        self.time[:] = self.steps
        if self._reward == "rowwise":
            # Rows that were given have no cells to pay for, others have been paid by write(), and
            # the last one is paid by finish().
            done, heights = np.maximum(self.given_rows(), self.rows_paid), self.heights()
            for row in range(1, self.layout.rows):
                which = np.flatnonzero((done < row) & (row < heights))
                if which.size:
                    self._pay_rows(which, row)

    @torch.no_grad()
    def finish(self, which: np.ndarray, score_map: ScoreMap | None = None) -> list[dict[str, Any]]:
        """The final infos (k of them): canvases of one height are decoded and scored in one pass.

        Args:
            score_map: the discriminator's score map (k, 1, h', w') of these canvases, which are of
                one height; None decodes and scores them.
        """
        found: dict[int, dict[str, Any]] = {}
        heights = self.heights()[which]
        for rows in np.unique(heights):
            group = which[heights == rows]
            canvas = self.canvas[group]
            paid, cells = self._score(group, int(rows), score_map)
            single = rewards.single(paid).cpu().numpy()  # (n,)
            if self._reward == "rowwise":
                self._pay_rows(group, int(rows), cells)
            nll = self.scorer.nll_oracle(canvas) if self.scorer.has_oracles else None
            for n, i in enumerate(group):
                steps = self.steps[i]
                if self._reward == "single":
                    step_rewards = np.zeros(steps, np.float32)
                    step_rewards[-1] = single[n]
                elif self._reward == "intermediate":
                    step_rewards = cells[n, self.order[i, :steps]]
                else:
                    step_rewards = self.step_rewards[i, :steps].copy()
                found[i] = {
                    "final_canvas": canvas[n].copy(),
                    "step_rewards": step_rewards,
                    "score_map": paid[n, 0].cpu().numpy(),
                    "start": starts.STARTS.index(self.mode[i]),
                    "rows": int(self.rows[i]),
                }
                if nll is not None:
                    found[i]["nll_oracle"] = float(nll[n])
        return [found[i] for i in which]

    def _score(
        self, which: np.ndarray, rows: int, score_map: ScoreMap | None = None
    ) -> tuple[ScoreMap, np.ndarray]:
        """Score the first ``rows`` rows of canvases in one pass.

        Returns:
            The score map (k, 1, h', w') that is paid, and the score at each cell, float32
            (k, length), 0 below those rows.
        """
        head = self.layout.head(rows)
        canvas = np.where(head, self.canvas[which], self.layout.outside)
        rngs = [self.rngs[i] for i in which]
        paid = rewards.control(self.scorer.score(canvas, score_map), self._source, rngs)
        cells = np.zeros(canvas.shape, np.float32)
        cells[:, head] = self.scorer.cell_scores(paid, rows).cpu()
        return paid, cells

    def _pay_rows(
        self, which: np.ndarray, rows: int, cells: np.ndarray | None = None
    ) -> np.ndarray:
        """Pay the rows finished since the last payment what their written cells score: (k,).

        Nothing yet while the image is too short for the discriminator.

        Args:
            rows: rows that are complete on all levels.
            cells: each cell's score (k, length), where it is known already.
        """
        if rows < self.scorer.min_rows:
            return np.zeros(len(which), np.float32)
        cells = self._score(which, rows)[1] if cells is None else cells
        due = ~self.given[which] & (self.layout.bands >= self.rows_paid[which, None])
        paid = (cells * due).sum(1)
        step = (~self.given[which] & self.layout.written(rows)).sum(1) - 1
        self.step_rewards[which, step] = paid
        self.rows_paid[which] = rows
        return paid
