"""What happens around SB3's updates: credited rewards, the discriminator, guards, pictures.

Callbacks for on-policy algorithms (PPO, A2C, TRPO). Give several as a list; SB3 calls them in its
order.
"""

from agents.sb3.callbacks.checkpoints import Checkpoints
from agents.sb3.callbacks.collapse_guard import CollapseGuard
from agents.sb3.callbacks.discriminator import DiscriminatorCallback
from agents.sb3.callbacks.episodes import Episode, EpisodeCallback
from agents.sb3.callbacks.progress import ProgressBar
from agents.sb3.callbacks.sample_grids import SampleGrids
from agents.sb3.callbacks.step_rewards import StepRewards
from agents.sb3.callbacks.value_warmup import ValueWarmup
from ral_env import migrations

__all__ = [
    "Checkpoints",
    "CollapseGuard",
    "DiscriminatorCallback",
    "Episode",
    "EpisodeCallback",
    "ProgressBar",
    "SampleGrids",
    "StepRewards",
    "ValueWarmup",
]

__getattr__ = migrations.old_names(__name__)
