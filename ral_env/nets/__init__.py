"""The networks. They know torch and nothing else of this project: not training, not episodes."""

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
