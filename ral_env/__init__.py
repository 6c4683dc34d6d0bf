"""Environments in which an agent writes images code by code (Ak et al., ECCV 2020).

Importing this package registers every environment id with Gymnasium and loads nothing else:
``gymnasium.make("RALFaces32-v0")`` and ``gymnasium.make_vec("RALFaces32-v0", num_envs=16)``.
"""

from gymnasium.envs.registration import register

__version__ = "0.1.0"

# id -> the bundle that it runs on
ENVIRONMENTS = {
    "RALFaces32-v0": "faces32",
    "RALDigits-v0": "digits",
    "RALOracle-v0": "oracle",
}

for _id, _bundle in ENVIRONMENTS.items():
    register(
        id=_id,
        entry_point="ral_env.env:LatentCanvasEnv",
        vector_entry_point="ral_env.vector:LatentCanvasVectorEnv",
        kwargs={"bundle": _bundle},
    )
