"""Environments in which an agent writes images code by code (Ak et al., ECCV 2020).

Importing this package registers every environment id with Gymnasium and loads nothing else:
``gymnasium.make("RALFaces32-v0")`` and ``gymnasium.make_vec("RALFaces32-v0", num_envs=16)``.
Processes that are forked from then on compute with one of PyTorch's threads: :mod:`ral_env.forks`.
"""

from gymnasium.envs.registration import register

from ral_env import forks, migrations, reference
from ral_env.tasks import TASKS

__version__ = "0.2.0"

forks.install()
migrations.install()


class StandInWarning(UserWarning):
    """An id runs on a stand-in: no bundle that was trained on the images it is named after."""


_scores = reference.scores()
# The last id is for bundles of any shape: gymnasium.make("RALBundle-v0", bundle="PATH or NAME").
for _id in (*TASKS, "RALBundle-v0"):
    register(
        id=_id,
        entry_point="ral_env.envs.single:LatentCanvasEnv",
        vector_entry_point="ral_env.envs.vector:LatentCanvasVectorEnv",
        reward_threshold=reference.reward_threshold(_scores.get(_id)),
        kwargs={"task": _id} if _id in TASKS else {},
    )
