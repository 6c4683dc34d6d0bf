"""A callback of Stable-Baselines3 that ends training by the clock."""

from __future__ import annotations

from collections.abc import Callable

from stable_baselines3.common.callbacks import BaseCallback


class OutOfTime(BaseCallback):
    """Ends training with the first rollout that begins after ``end``.

    Args:
        clock: What tells the time, such as ``time.process_time``.
        end: Time on that clock.
    """

    def __init__(self, clock: Callable[[], float], end: float):
        super().__init__()
        self.clock, self.end = clock, end
        self.over = False

    def _on_rollout_start(self) -> None:
        self.over = self.clock() >= self.end

    def _on_step(self) -> bool:
        return not self.over
