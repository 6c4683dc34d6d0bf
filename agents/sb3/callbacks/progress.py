"""How far training is."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from agents.training.progress import progress_bar


class ProgressBar(BaseCallback):
    """A bar with the time left and the mean reward of the last episodes.

    Args:
        total: Number of codes that training writes.
    """

    def __init__(self, total: int):
        super().__init__()
        self.bar = progress_bar(total, "ral", "code", unit_scale=True)

    def _on_step(self) -> bool:
        """Advances the bar."""
        self.bar.update(self.num_timesteps - self.bar.n)
        if episodes := self.model.ep_info_buffer:
            self.bar.tell(f"reward {np.mean([e['r'] for e in episodes]):+.3f}")
        return True

    def _on_training_end(self) -> None:
        """Closes the bar."""
        self.bar.close()
