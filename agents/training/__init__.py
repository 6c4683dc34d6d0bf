"""How anything is trained: what REINFORCE, the SB3 runs and pretraining share."""

from ral_env.migrations import old_names

__getattr__ = old_names(__name__)
