"""Who learns: maximum likelihood, the discriminator, and REINFORCE."""
