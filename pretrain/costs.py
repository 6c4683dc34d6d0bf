"""What pretraining costs: memory of every recipe, computed; images and codes a second, measured.

    ral bench pretraining                                   # both, one CPU thread
    ral bench pretraining --part speed --recipe celeba128 --device cuda
    ral bench pretraining --part peer --clone FOLDER        # of rosinality/vq-vae-2-pytorch

*Memory* of a training step is four times the weights (they, their gradients, Adam's two averages),
once those that are taken from a recipe's base and do not learn, and all tensors that the forward
pass saves for the backward pass, counted by running it on tensors without contents; a library's
workspace is not in it. The recipes' whole batch is taken at once: ``accumulate`` divides the saved
tensors. *Sampling* is of 16 canvases: a prior's weights, its cache and a row's noise; of a VQ-VAE,
which decodes them, its weights and the largest input and output of a layer.

*Speed* is that of a training step, forward, backward and update; for the VQ-VAE without the
codebook's look-up. Loading is of PNG files of the recipe's size, by one process. *Peer* is a whole
step of a VQ-VAE-2 of the paper's size, codebooks included, by turns with a public implementation's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pretrain import data
from pretrain.base import freeze_codes
from pretrain.configs import Recipe
from pretrain.pixels import to_float
from pretrain.recipes import RECIPES
from pretrain.vqvae import codebooks, losses
from ral_env.nets import VQVAE, PixelCNN, PixelCNNConfig, VQVAEConfig
from ral_env.nets.cache import Cache
from ral_env.ranges import COUNT, THREADS, check_values


def saved_bytes(net: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass saves for the backward pass, the net's weights aside."""
    weights = {p.untyped_storage()._cdata for p in net.parameters()}
    saved: dict[int, tuple[Tensor, int]] = {}  # tensors, so that no storage is used twice

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = tensor, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        forward()
    return sum(size for _, size in saved.values())


def weight_bytes(net: nn.Module, learning: bool = False) -> int:
    """Bytes of a net's weights in float32, or of those that learn."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad or not learning) * 4


def sampling_bytes(net: PixelCNN | VQVAE, batch: int) -> int:
    """Bytes that sampling from a prior, or decoding by a VQ-VAE, needs, weights included."""
    with torch.no_grad():
        if isinstance(net, VQVAE):
            return weight_bytes(net) + _decoding_bytes(net, batch)
        return weight_bytes(net) + _sampling_bytes(net, batch)


def _decoding_bytes(net: VQVAE, batch: int) -> int:
    """Bytes of the largest input and output of a layer."""
    largest = 0

    def look(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal largest
        largest = max(largest, inputs[0].nbytes + output.nbytes)

    hooks = [m.register_forward_hook(look) for m in net.modules() if not list(m.children())]
    device = net.codebooks.device
    net.decode([torch.zeros(batch, *g, dtype=torch.int64, device=device) for g in net.config.grids])
    for hook in hooks:
        hook.remove()
    return largest


def _sampling_bytes(net: PixelCNN, batch: int) -> int:
    """Bytes of the cache, and of a row's noise: its bits, itself, and the biases under it."""
    rows, columns = net.config.grid
    _, condition = _codes(net.config, batch, str(net.embedding.weight.device))
    cache = Cache(net.weights(), batch, net.context(condition, rows))
    return cache.held_bytes() + 3 * 4 * batch * columns * net.config.num_codes


def vqvae_loss(net: VQVAE, images: Tensor) -> Tensor:
    """Reconstruction error, the codebook left out."""
    with torch.set_grad_enabled(next(net.encoder.parameters()).requires_grad):
        vectors = net.quantise(images, lambda _, vectors: vectors)
    decoded = net.decode_vectors(vectors)
    return F.mse_loss(decoded, images)


def _codes(config: PixelCNNConfig, batch: int, device: str) -> tuple[Tensor, Tensor | None]:
    """Random codes, and those of the level above where there is one."""
    above = config.condition_grid
    codes = torch.randint(config.num_codes, (batch, *config.grid), device=device)
    if above is None:
        return codes, None
    return codes, torch.randint(config.num_codes, (batch, *above), device=device)


def stages(
    recipe: Recipe, device: str
) -> Iterator[tuple[str, PixelCNN | VQVAE, Callable[[], Tensor], int]]:
    """For each net that a recipe trains its name, the net, a training step's loss of one batch, and
    the number of examples in it. Of a recipe with a base that is the VQ-VAE, whose decoder learns.
    """
    batch_size, size = recipe.vqvae_training.batch, recipe.vqvae.image_size
    with torch.device(device):
        net = VQVAE(recipe.vqvae)
        images = torch.zeros(batch_size, 3, size, size)
    if recipe.base is not None:
        freeze_codes(net)
    yield "vqvae", net, lambda: vqvae_loss(net, images), batch_size
    if recipe.base is not None:
        return
    levels = zip(recipe.priors, recipe.prior_trainings, strict=True)
    for level, (config, training) in enumerate(levels):
        with torch.device(device):
            prior = PixelCNN(config)
        batch = _codes(config, training.batch, device)

        def loss(prior: PixelCNN = prior, batch: Any = batch) -> Tensor:
            return prior.compute_loss(*batch)["nats_per_code"]

        yield f"prior_{level}", prior, loss, training.batch


def memory() -> list[dict[str, str]]:
    """A row for each net that a recipe trains; recipes of the same nets share one."""
    rows: dict[tuple, dict[str, str]] = {}
    for recipe in RECIPES.values():
        for stage, net, loss, batch in stages(recipe, "meta"):
            weights = weight_bytes(net)
            trained = weights + 3 * weight_bytes(net, learning=True)
            same = rows.setdefault(
                (stage, repr(net.config), batch),
                {
                    "recipe": "",
                    "net": stage,
                    "weights MB": f"{weights / 1e6:.1f}",
                    "batch": str(batch),
                    "training GB": f"{(trained + saved_bytes(net, loss)) / 1e9:.2f}",
                    "sampling GB": f"{sampling_bytes(net, 16) / 1e9:.3f}",
                },
            )
            same["recipe"] += f"{', ' if same['recipe'] else ''}{recipe.name}"
    return list(rows.values())


def seconds_of(step: Callable[[], Any], device: str, repeats: int = 5) -> float:
    """Median seconds of a step, after two that warm up."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[2:])[repeats // 2]


def training_step(
    optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], precision: Any
) -> None:
    """A forward pass in the context ``precision``, a backward pass and an update."""
    optimizer.zero_grad()
    with precision:
        found = loss()
    found.float().backward()
    optimizer.step()


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to compute a training step that may be faster than the plain one.

    Args:
        memory_format: How the net's weights are laid out.
        bfloat16: Whether the loss is computed in mixed precision.
        wrap: What the loss function is wrapped in, such as ``torch.compile``.
    """

    memory_format: Any = torch.contiguous_format
    bfloat16: bool = False
    wrap: Callable[[Callable[[], Tensor]], Callable[[], Tensor]] = lambda loss: loss


VARIANTS = {
    "float32": Variant(),
    "channels_last": Variant(memory_format=torch.channels_last),
    "bfloat16": Variant(bfloat16=True),
}
COMPILED = {"compiled": Variant(wrap=cast(Any, torch.compile))}


def speed(
    recipe: Recipe,
    device: str,
    variants: Mapping[str, Variant] = VARIANTS,
    timer: Callable[[Callable[[], Any], str], float] = seconds_of,
) -> list[dict[str, str]]:
    """A row for each net of a recipe and each variant of its training step.

    Args:
        recipe: The recipe.
        device: ``cpu`` or ``cuda``.
        variants: What is timed, by name; ratios are to the first.
        timer: Seconds that a step takes on a device.
    """
    rows = []
    for stage, net, loss, batch in stages(recipe, device):
        net.to(device).train()
        examples = "images" if isinstance(net, VQVAE) else "codes"
        count = batch if isinstance(net, VQVAE) else batch * math.prod(net.config.grid)
        optimizer = torch.optim.AdamW(net.parameters())
        first = 0.0
        for name, variant in variants.items():
            net.to(memory_format=variant.memory_format)
            precision = torch.autocast(device, torch.bfloat16, enabled=variant.bfloat16)
            step = partial(training_step, optimizer, variant.wrap(loss), precision)
            seconds = timer(step, device)
            first = first or seconds
            rows.append({
                "what": f"{stage}, {name}",
                "batch": str(batch),
                "ms a step": f"{seconds * 1e3:.0f}",
                "a second": f"{count / seconds:.0f} {examples}",
                "ratio": f"{first / seconds:.2f}",
            })  # fmt: skip
    return rows


def loading(recipe: Recipe, count: int = 256) -> dict[str, str]:
    """A row for reading PNG files a batch at a time, as training does."""
    size, batch = recipe.vqvae.image_size, min(64, recipe.vqvae_training.batch)
    pixels, _ = data.faces(count, size)
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(pixels.transpose(0, 2, 3, 1)):
            Image.fromarray(image).save(Path(folder) / f"{i:05d}.png")
        images = data.load("folder", size, root=folder).part("train")
        index = torch.arange(len(images))[:batch]
        seconds = seconds_of(lambda: to_float(images[index]), "cpu")
    return {"what": "loading", "batch": str(batch), "ms a step": f"{seconds * 1e3:.0f}",
            "a second": f"{len(index) / seconds:.0f} images", "ratio": ""}  # fmt: skip


def peer(clone: str, size: int, batch: int, device: str) -> list[dict[str, str]]:
    """A row for VQ-VAE-2 of the paper's size as it is here, and one for rosinality's.

    Both learn from the same images, by turns, so that other load on the machine meets both.

    Args:
        clone: Folder of a clone of github.com/rosinality/vq-vae-2-pytorch.
        size: Height and width of the images in pixels.
        batch: Number of images per step.
        device: ``cpu`` or ``cuda``.

    Raises:
        ValueError: If the folder is no such clone.
    """
    recipe = RECIPES["celeba128"]
    config = dataclasses.replace(recipe.vqvae, image_size=size)
    theirs = _peer_net(clone, config).to(device)
    ours = VQVAE(config).to(device)
    quantisers = [book.to(device) for book in codebooks(config, recipe.vqvae_training)]
    pixels = torch.from_numpy(data.faces(batch, size)[0]).to(device)

    def their_loss() -> Tensor:
        images = to_float(pixels)
        decoded, commitment = theirs(images)
        return F.mse_loss(decoded, images) + 0.25 * commitment.mean()

    def our_loss() -> Tensor:
        return torch.stack(list(losses(ours, quantisers, 0, pixels).values())).sum()

    nets = {"ours": (ours, our_loss), "rosinality's": (theirs, their_loss)}
    plain = contextlib.nullcontext()
    steps = {
        name: partial(training_step, torch.optim.Adam(net.parameters()), loss, plain)
        for name, (net, loss) in nets.items()
    }
    seconds = dict.fromkeys(nets, float("inf"))
    for _ in range(3):
        for name, step in steps.items():
            seconds[name] = min(seconds[name], seconds_of(step, device, 3))
    theirs_seconds = seconds["rosinality's"]
    return [
        {"VQ-VAE-2": name, "weights": f"{sum(p.numel() for p in net.parameters()):,}",
         "ms a step": f"{seconds[name] * 1e3:.0f}",
         "images a second": f"{batch / seconds[name]:.1f}",
         "ratio": f"{theirs_seconds / seconds[name]:.2f}"}
        for name, (net, _) in nets.items()
    ]  # fmt: skip


def _peer_net(clone: str, config: VQVAEConfig) -> Any:
    """rosinality's VQ-VAE-2 with the sizes of a config."""
    with tempfile.TemporaryDirectory() as folder:
        # Its codebook imports this module to sum over processes; here there is one.
        Path(folder, "distributed.py").write_text(
            "def all_reduce(tensor):\n    return tensor\n", encoding="utf-8"
        )
        sys.path[:0] = [folder, clone]
        try:
            net: Any = importlib.import_module("vqvae").VQVAE(
                channel=config.hidden, n_res_block=2, n_res_channel=config.residual,
                embed_dim=config.code_dim, n_embed=config.num_codes,
            )  # fmt: skip
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"clone={clone!r} has no vqvae.VQVAE ({error}), expected a clone of "
                "github.com/rosinality/vq-vae-2-pytorch"
            ) from error
        finally:
            del sys.path[:2]
    return net


def _print(rows: list[dict[str, str]]) -> None:
    for cells in (list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)):
        print(f"| {' | '.join(cells)} |")


def command(
    part: Literal["memory", "speed", "both", "peer"] = "both",
    recipe: str = "faces64",
    clone: str = "",
    batch: int = 8,
    device: str = "cpu",
    threads: int = 1,
    compile: bool = False,
) -> None:
    """Print what pretraining costs.

    Args:
        part: Table to print; both is memory and speed.
        recipe: Name of the recipe whose training steps are timed.
        clone: Folder of the clone that peer compares with.
        batch: Number of images per step of the comparison with the peer.
        device: Device to time on, cpu or cuda.
        threads: Number of torch's threads on the CPU.
        compile: Whether to time steps that Inductor has compiled, too; it needs a C++ compiler.
    """
    if recipe not in RECIPES:
        raise ValueError(f"recipe={recipe!r}, expected one of {', '.join(RECIPES)}")
    check_values({"threads": threads, "batch": batch}, threads=THREADS, batch=COUNT)
    torch.set_num_threads(threads)
    if part in ("memory", "both"):
        print("Memory, float32 (computed): a training step of the whole batch; 16 samples\n")
        _print(memory())
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {threads} thread(s)"
    if part in ("speed", "both"):
        print(f"\nTraining steps of recipe {recipe}, {where}\n")
        variants = VARIANTS | COMPILED if compile else VARIANTS
        _print([*speed(RECIPES[recipe], device, variants), loading(RECIPES[recipe])])
    if part == "peer":
        print(f"A step of a VQ-VAE-2 at 128 pixels, batch {batch}, {where}\n")
        _print(peer(clone, 128, batch, device))


def main(argv: list[str] | None = None) -> None:
    """Run the command; ``argv`` are its arguments, those of the process if None."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench pretraining", as_positional=False)


if __name__ == "__main__":
    main()
