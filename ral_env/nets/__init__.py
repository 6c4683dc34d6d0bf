"""The networks: image tokenisers, priors, discriminators, and what samples from them.

They know torch and nothing of training or episodes. Import arrows within this package run from
``noise`` and ``weights`` over ``cache``, ``eager`` and ``native`` to ``backends`` and ``pixelcnn``,
and on to what is built on it.
"""

from ral_env.migrations import old_names
from ral_env.nets import joint
from ral_env.nets.features import FeatureNet, FeatureNetConfig
from ral_env.nets.mixture import Mixture, MixtureConfig
from ral_env.nets.patchgan import PatchGAN, PatchGANConfig
from ral_env.nets.pixelcnn import PixelCNN, PixelCNNConfig
from ral_env.nets.protocol import Codec, Prior, represent
from ral_env.nets.uncached import UncachedPrior
from ral_env.nets.vqvae import VQVAE, VQVAEConfig

__all__ = [
    "VQVAE",
    "Codec",
    "FeatureNet",
    "FeatureNetConfig",
    "Mixture",
    "MixtureConfig",
    "PatchGAN",
    "PatchGANConfig",
    "PixelCNN",
    "PixelCNNConfig",
    "Prior",
    "UncachedPrior",
    "VQVAEConfig",
    "joint",
    "represent",
]

__getattr__ = old_names(__name__)
