"""What pretraining costs: memory of every recipe, computed; images and codes a second, measured.

    ral bench pretraining                                   # both, one CPU thread
    ral bench pretraining --part speed --recipe celeba128 --device cuda
    ral bench pretraining --part peer --clone FOLDER        # of rosinality/vq-vae-2-pytorch

*Memory* of a training step is four times the weights (they, their gradients, Adam's two averages)
and all that the forward pass keeps for the way back, counted by running it on tensors without
contents; what a library takes while it works is not in it. The recipes' whole batch is taken at
once: ``accumulate`` divides what is kept. *Sampling* is of 16 canvases: a prior's weights, its
cache and a row's noise; of a VQ-VAE, whose part it is to decode them, its weights and the largest
input and output of a layer.

*Speed* is that of a training step, forward, backward and update; for the VQ-VAE without the
codebook's look-up. Loading is of PNG files of the recipe's size, by one process. *Peer* is a whole
step of a VQ-VAE-2 of the paper's size, codebooks included, by turns with a public implementation's.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from pretrain import data
from pretrain.recipes import RECIPES, Recipe
from pretrain.vqvae import codebooks, losses, to_float
from ral_env.nets import VQVAE, PixelCNN, PixelCNNConfig
from ral_env.nets.cache import Cache


def kept_bytes(net: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass keeps for the way back, the net's own weights aside."""
    own = {p.untyped_storage()._cdata for p in net.parameters()}
    kept: dict[int, tuple[Tensor, int]] = {}  # tensors, so that no storage is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = tensor, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(size for _, size in kept.values())


def weight_bytes(net: nn.Module) -> int:
    """Bytes of a net's weights in float32."""
    return sum(p.numel() for p in net.parameters()) * 4


def sampling_bytes(net: PixelCNN | VQVAE, batch: int) -> int:
    """Bytes that sampling needs of a prior, or decoding of a VQ-VAE, weights included."""
    with torch.no_grad():
        if isinstance(net, VQVAE):
            return weight_bytes(net) + _decoding(net, batch)
        return weight_bytes(net) + _sampling(net, batch)


def _decoding(net: VQVAE, batch: int) -> int:
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


def _sampling(net: PixelCNN, batch: int) -> int:
    """Bytes of the cache, and of a row's noise: its bits, itself, and the biases under it."""
    rows, columns = net.config.grid
    _, condition = _codes(net.config, batch, str(net.embedding.weight.device))
    cache = Cache(net.weights(), batch, net.context(condition, rows))
    return cache.held_bytes() + 3 * 4 * batch * columns * net.config.num_codes


def vqvae_loss(net: VQVAE, images: Tensor) -> Tensor:
    """Reconstruction error, the codebook left out."""
    decoded = net.decode_vectors(net.quantise(images, lambda _, vectors: vectors))
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
    """Each net of a recipe by name, a training step's loss of one batch, and the batch's size."""
    training = recipe.vqvae_training
    with torch.device(device):
        net = VQVAE(recipe.vqvae)
        size = recipe.vqvae.image_size
        images = torch.zeros(training.batch, 3, size, size)
    yield "vqvae", net, lambda: vqvae_loss(net, images), training.batch
    for level, (config, own) in enumerate(zip(recipe.priors, recipe.prior_trainings, strict=True)):
        with torch.device(device):
            prior = PixelCNN(config)
        batch = _codes(config, own.batch, device)

        def loss(prior: PixelCNN = prior, batch: Any = batch) -> Tensor:
            return prior.compute_loss(*batch)["nats_per_code"]

        yield f"prior_{level}", prior, loss, own.batch


def memory() -> list[dict[str, str]]:
    """A row for each net of each recipe; recipes of the same nets share one."""
    rows: dict[tuple, dict[str, str]] = {}
    for recipe in RECIPES.values():
        for stage, net, loss, batch in stages(recipe, "meta"):
            weights = weight_bytes(net)
            same = rows.setdefault(
                (stage, repr(net.config), batch),
                {
                    "recipe": "",
                    "net": stage,
                    "weights MB": f"{weights / 1e6:.1f}",
                    "batch": str(batch),
                    "training GB": f"{(4 * weights + kept_bytes(net, loss)) / 1e9:.2f}",
                    "sampling GB": f"{sampling_bytes(net, 16) / 1e9:.3f}",
                },
            )
            same["recipe"] += f"{', ' if same['recipe'] else ''}{recipe.name}"
    return list(rows.values())


def seconds_of(step: Callable[[], Any], device: str, repeats: int = 5) -> float:
    """Median seconds of a step; two warm up."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[2:])[repeats // 2]


def _step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], mixed: Any) -> None:
    optimizer.zero_grad()
    with mixed:
        found = loss()
    found.float().backward()
    optimizer.step()


def speed(recipe: Recipe, device: str, compile: bool = False) -> list[dict[str, str]]:
    """Training steps in the ways that could pay, and loading beside them."""
    ways = ["float32", "channels_last", "bfloat16", *["compiled"] * compile]
    rows = []
    for stage, net, loss, batch in stages(recipe, device):
        net.to(device).train()
        images = stage == "vqvae"
        each = "images" if images else "codes"
        count = batch if images else batch * net.config.grid[0] * net.config.grid[1]  # type: ignore
        optimizer = torch.optim.AdamW(net.parameters())
        first = 0.0
        for way in ways:
            net.to(memory_format=torch.channels_last if way == "channels_last"
                   else torch.contiguous_format)  # type: ignore[call-overload]  # fmt: skip
            mixed = torch.autocast(device, torch.bfloat16, enabled=way == "bfloat16")
            forward = torch.compile(loss) if way == "compiled" else loss
            seconds = seconds_of(partial(_step, optimizer, forward, mixed), device)
            first = first or seconds
            rows.append({
                "what": f"{stage}, {way}", "batch": str(batch), "ms a step": f"{seconds * 1e3:.0f}",
                "a second": f"{count / seconds:.0f} {each}", "ratio": f"{first / seconds:.2f}",
            })  # fmt: skip
    return [*rows, loading(recipe)]


def loading(recipe: Recipe, count: int = 256) -> dict[str, str]:
    """Reading PNG files, as training does: whole batches of them."""
    size, batch = recipe.vqvae.image_size, min(64, recipe.vqvae_training.batch)
    pixels, _ = data.faces(count, size)
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(torch.from_numpy(pixels)):
            to_pil_image(image).save(Path(folder) / f"{i:05d}.png")
        images = data.load("folder", size, root=folder).part("train")
        index = torch.arange(len(images))[:batch]
        seconds = seconds_of(lambda: to_float(images[index]), "cpu")
    return {"what": "loading", "batch": str(batch), "ms a step": f"{seconds * 1e3:.0f}",
            "a second": f"{len(index) / seconds:.0f} images", "ratio": ""}  # fmt: skip


def peer(clone: str, size: int, batch: int, device: str) -> list[dict[str, str]]:
    """VQ-VAE-2 of the paper's size, ours and rosinality's: both learn from the same images."""
    recipe = RECIPES["celeba128"]
    config = dataclasses.replace(recipe.vqvae, image_size=size)
    with tempfile.TemporaryDirectory() as folder:
        # Its codebook asks this module of its own to sum over processes; there is one here.
        Path(folder, "distributed.py").write_text("def all_reduce(tensor):\n    return tensor\n")
        sys.path[:0] = [folder, clone]
        try:
            theirs: Any = importlib.import_module("vqvae").VQVAE(
                channel=config.hidden, n_res_block=2, n_res_channel=config.residual,
                embed_dim=config.code_dim, n_embed=config.num_codes,
            ).to(device)  # fmt: skip
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"clone={clone!r} has no vqvae.VQVAE ({error}), expected a clone of "
                "github.com/rosinality/vq-vae-2-pytorch"
            ) from error
        finally:
            del sys.path[:2]
    ours = VQVAE(config).to(device)
    books = [book.to(device) for book in codebooks(config, recipe.vqvae_training)]
    pixels = torch.from_numpy(data.faces(batch, size)[0]).to(device)

    def their_loss() -> Tensor:
        images = to_float(pixels)
        decoded, commitment = theirs(images)
        return F.mse_loss(decoded, images) + 0.25 * commitment.mean()

    def our_loss() -> Tensor:
        return torch.stack(list(losses(ours, books, 0, pixels).values())).sum()

    plain = torch.autocast(device, enabled=False)
    steps = {
        name: partial(_step, torch.optim.Adam(net.parameters()), loss, plain)
        for name, net, loss in (("ours", ours, our_loss), ("rosinality's", theirs, their_loss))
    }
    times = {name: float("inf") for name in steps}
    for _ in range(3):  # by turns, so that what else goes on meets both
        for name, step in steps.items():
            times[name] = min(times[name], seconds_of(step, device, 3))
    their_seconds = times["rosinality's"]
    sizes = {"ours": ours, "rosinality's": theirs}
    return [
        {"VQ-VAE-2": name, "weights": f"{sum(p.numel() for p in sizes[name].parameters()):,}",
         "ms a step": f"{seconds * 1e3:.0f}", "images a second": f"{batch / seconds:.1f}",
         "ratio": f"{their_seconds / seconds:.2f}"}
        for name, seconds in times.items()
    ]  # fmt: skip


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
    """Tell what pretraining costs.

    Args:
        part: which table; both are of memory and speed.
        recipe: whose training steps are timed.
        clone: of the peer, a folder.
        batch: images of the comparison with the peer.
        device: cpu or cuda, of the timing.
        threads: of torch, on the CPU.
        compile: time steps that Inductor compiled, too; it needs a C++ compiler.
    """
    if recipe not in RECIPES:
        raise ValueError(f"recipe={recipe!r}, expected one of {', '.join(RECIPES)}")
    torch.set_num_threads(threads)
    if part in ("memory", "both"):
        print("Memory, float32 (computed): a training step of the whole batch; 16 samples\n")
        _print(memory())
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {threads} thread(s)"
    if part in ("speed", "both"):
        print(f"\nTraining steps of recipe {recipe}, {where}\n")
        _print(speed(RECIPES[recipe], device, compile))
    if part == "peer":
        print(f"A step of a VQ-VAE-2 at 128 pixels, batch {batch}, {where}\n")
        _print(peer(clone, 128, batch, device))


def main(argv: list[str] | None = None) -> None:
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench pretraining", as_positional=False)


if __name__ == "__main__":
    main()
