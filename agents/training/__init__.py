"""How anything is trained: what REINFORCE, the SB3 runs and pretraining share."""
