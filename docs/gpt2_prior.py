"""A GPT-2 as the prior of RALMNIST-v0: trained from nothing on its codes, fine-tuned by RAL.

    pip install '.[transformers]'
    python docs/gpt2_prior.py --seconds 60 --out runs/gpt2

Times are processor seconds of one thread, for each of the two trainings. It prints how fast the
cache is, and a row of figures for the shipped PixelCNN, the GPT-2 after maximum likelihood and the
GPT-2 after RAL. ``OUT/samples.png`` has samples of it before (left) and after RAL.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import GPT2Config, GPT2LMHeadModel

from agents.evaluation.evaluator import Evaluator, TemperedPrior, headings
from agents.reinforce import fit_preset, train
from ral_env import bundle as bundles
from ral_env.bundle.causal import CausalPrior
from ral_env.nets import UncachedPrior
from ral_env.picture import contact_sheet, to_bytes
from ral_env.tables import markdown_table

ENV, CANVASES = "RALMNIST-v0", 500
COLUMNS = ("row", "parameters", "fd", "precision", "coverage", "entropy", "forward_nll")


def make_prior(layout: Any) -> CausalPrior:
    """A small GPT-2 over one grid of codes: 0.16 million parameters for 8x8 of 64."""
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=layout.num_codes + 1,
            n_positions=layout.length,
            n_embd=64,
            n_layer=3,
            n_head=4,
            bos_token_id=layout.num_codes,
            eos_token_id=layout.num_codes,
        )
    )
    return CausalPrior(model, layout.num_codes)


def fit(prior: CausalPrior, bundle: bundles.Bundle, seconds: float) -> None:
    """Maximum likelihood on the training codes; the learning rate falls to 0 over the time."""
    (real,) = bundle.layout.as_grids(bundle.split("train"))
    optimizer = torch.optim.AdamW(prior.parameters(), lr=2e-3, weight_decay=0.1)
    start, step = time.process_time(), 0
    prior.train()
    while (done := (time.process_time() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 50) * (1 - done)
        loss = -prior.log_prob(real[torch.randint(len(real), (32,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(prior.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"{step} updates, {loss.item():.3f} nats per code", flush=True)
    prior.eval()


def write(sampler: Any, layout: Any) -> tuple[torch.Tensor, float]:
    """64 canvases, and the processor seconds that they took."""
    empty, start = layout.empty_grids(64)[0], time.process_time()
    codes = sampler.sample(empty, generator=torch.Generator().manual_seed(0))
    return codes, time.process_time() - start


def main() -> None:
    """Train, fine-tune, measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each training")
    parser.add_argument("--out", default="runs/gpt2", help="folder of the picture")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shipped = bundles.load("mnist")
    prior = make_prior(shipped.layout).eval()
    cached, seconds = write(prior, shipped.layout)
    plain, longer = write(UncachedPrior(prior.logits, shipped.layout.num_codes), shipped.layout)
    same = "the same" if torch.equal(cached, plain) else "other"
    print(f"64 canvases: {seconds:.2f} s with the cache, {longer:.2f} s without; {same} codes")
    fit(prior, shipped, asked.seconds)

    bundle = dataclasses.replace(shipped, priors=(copy.deepcopy(prior),))
    config = dataclasses.replace(fit_preset("small", bundle), env=ENV, seconds=asked.seconds)
    result = train(config, bundle=bundle, progress=False, clock=time.process_time)

    evaluator, rows, sheets = Evaluator(shipped), [], []
    tuned = result.policies[0]
    for label, one in [("PixelCNN", shipped.priors[0]), ("GPT-2", prior), ("GPT-2, RAL", tuned)]:
        found = evaluator.evaluate_prior(TemperedPrior([one]), CANVASES)
        size = f"{sum(p.numel() for p in one.parameters()):,}"
        rows.append({"row": label, "parameters": size} | found.figures)
        sheets.append(contact_sheet(to_bytes(evaluator.images([g[:64] for g in found.grids]))))
    print(markdown_table(rows, COLUMNS, {"row": "", **headings(COLUMNS)}))
    print(f"RAL: {len(result.history)} iterations, AUC {result.history[-1]['auc']:.2f}")
    out = Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.hstack(sheets[1:])).save(out / "samples.png")


if __name__ == "__main__":
    main()
