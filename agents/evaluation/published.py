"""FID, KID and CMMD: distances in the feature spaces of published networks.

Their weights are not part of this package and nothing is downloaded: put the files into
``$RAL_ENV_HOME/weights`` (by default ``~/.cache/ral_env/weights``):

- ``weights-inception-2015-12-05-6726825d.pth``, which torch-fidelity publishes with its release,
  for FID and KID; they need ``pip install 'ral-env[fid,pretrain]'``.
- the folder ``clip-vit-large-patch14-336``, as OpenAI publishes it on Hugging Face, for CMMD; it
  needs ``pip install transformers``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.evaluation import metrics
from agents.training.files import Row
from ral_env.bundle import home

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
CLIP = "clip-vit-large-patch14-336"
BATCH = 50  # images that pass a net together

# Images uint8 (N, 3, H, W) to features (N, F).
Embedding = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PublishedNets:
    """The published networks that this machine has.

    Attributes:
        embeddings: ``"inception"`` and ``"clip"``, where they are there: uint8 images (N, 3, H, W)
            to features (N, F).
        missing: What is to be done for those that are not, in words.
    """

    embeddings: Mapping[str, Embedding] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Features (N, F) of uint8 images (N, 3, H, W), by name of the network."""
        return {
            name: torch.cat([embed(part) for part in images.split(BATCH)])
            for name, embed in self.embeddings.items()
        }


def find(folder: Path | None = None) -> PublishedNets:
    """The networks whose files and libraries are there; ``folder`` is by default that above."""
    own = home()
    root = folder or (Path("$RAL_ENV_HOME") if own is None else own.parent) / "weights"
    embeddings, missing = {}, []
    extra = "'ral-env[fid,pretrain]'"
    wanted = (
        ("inception", "FID and KID", INCEPTION, "torch_fidelity", extra, inception),
        ("clip", "CMMD", CLIP, "transformers", "transformers", clip),
    )
    for name, figures, file, library, package, load in wanted:
        todo = [] if (root / file).exists() else [f"put {file} into {root}"]
        if find_spec(library) is None:
            todo.append(f"pip install {package}")
        if todo:
            missing.append(f"For {figures}: {', and '.join(todo)}.")
        else:
            embeddings[name] = load(root / file)
    return PublishedNets(embeddings, tuple(missing))


def inception(file: Path) -> Embedding:
    """The Inception network of FID, as its first implementation: 299 pixels, no antialiasing.

    torch-fidelity unpickles the file: use one that you trust.
    """
    from torchmetrics.image.fid import NoTrainInceptionV3

    net: Any = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(file), antialias=False)
    return torch.no_grad()(net)


def clip(folder: Path) -> Embedding:
    """CLIP's image embeddings of length 1, as CMMD takes them, from a folder of its files."""
    import transformers  # type: ignore[import-not-found]

    processor = transformers.CLIPImageProcessor.from_pretrained(folder)
    net = transformers.CLIPVisionModelWithProjection.from_pretrained(folder).eval()

    @torch.no_grad()
    def embed(images: Tensor) -> Tensor:
        inputs = processor(images=list(images), return_tensors="pt")
        return torch.nn.functional.normalize(net(**inputs).image_embeds, dim=1)

    return embed


def figures(real: Mapping[str, Tensor], fake: Mapping[str, Tensor]) -> Row:
    """``fid``, ``kid`` and ``cmmd``, where there are features of both sides, 2 or more of each.

    Args:
        real, fake: Features (N, F) and (M, F), by name of the network.
    """
    row = Row()
    if "inception" in real:
        row["fid"] = metrics.frechet_distance(real["inception"], fake["inception"])
        row["kid"] = metrics.kernel_distance(real["inception"], fake["inception"])
    if "clip" in real:
        row["cmmd"] = metrics.clip_distance(real["clip"], fake["clip"])
    return row
