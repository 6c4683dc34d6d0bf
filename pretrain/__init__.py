"""Images in, a bundle out: VQ-VAE, codes, prior, discriminator."""
