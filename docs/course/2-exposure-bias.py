# %% [markdown]
# # 2. Exposure bias made visible
#
# Maximum likelihood asks a prior for the next code after *real* codes. When it samples, it reads
# what it wrote itself. Does that matter? Here the true distribution is known, so we can measure
# it, code by code.
#
# `RALOracle-v0`'s "real" canvases are samples of an oracle p, faces of one tint each. The prior G
# was trained on them by maximum likelihood.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import torch

from ral_env import bundle
from ral_env.nets import joint
from ral_env.picture import contact_sheet, to_bytes

plt.style.use("../docs.mplstyle")
FAST = os.environ.get("FAST") == "1"
COUNT = 2000 if FAST else 5000

data = bundle.load("oracle")
layout, prior, oracle = data.layout, data.priors, data.oracles
noise = torch.Generator().manual_seed(0)
real = joint.draw(oracle, COUNT, noise)
own = joint.draw(prior, COUNT, noise)


def excess(grids):
    """log G - log p of each code, nats, summed over rows: (N, 8)."""
    with torch.no_grad():
        parts = [prior[0].log_prob(g) - oracle[0].log_prob(g) for g in grids[0].split(250)]
    return torch.cat(parts).sum(2).numpy()


def mean_error(values):
    """Mean over canvases, and its standard error."""
    return values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))


# %% [markdown]
# ## Two ways to be wrong
#
# On real canvases G gives away E_p[log p - log G], the *forward* KL. On its own, the oracle finds
# them less likely than G does, by E_G[log G - log p], the *reverse* KL. Both are sums over codes,
# by the chain rule, so we can see in which row they arise.

# %%
forward, reverse = -excess(real), excess(own)
plt.figure(figsize=(6, 3))
for name, nats in (("on real canvases (forward)", forward), ("on its own (reverse)", reverse)):
    mean, error = mean_error(nats)
    plt.errorbar(range(1, 9), mean, 2 * error, label=name, capsize=2)
    print(f"{name}: {nats.sum(1).mean():.1f} nats a canvas, rows {mean.round(1)}")
plt.xlabel("row of the canvas")
plt.ylabel("nats")
plt.legend()
plt.show()

# %% [markdown]
# ## Is it the reading of its own codes?
#
# The reverse KL also weighs errors in another way than the forward: what grows from row to row
# might be the last rows' own difficulty. So intervene. Give the prior k *real* rows, let it write
# the others, and look at the **last row alone**, which is always its own. All that changes is who
# wrote what it reads.

# %%
given = (0, 2, 4, 6, 7)
last = {}
for k in given:
    begun = real[0].clone()
    begun[:, k:] = layout.empty
    last[k] = excess(joint.sample(prior, [begun], generator=noise))[:, 7]

plt.figure(figsize=(5, 3))
found = [mean_error(last[k]) for k in given]
plt.errorbar(given, [m for m, _ in found], [2 * e for _, e in found], capsize=2)
plt.xlabel("rows that were real")
plt.ylabel("excess of the last row, nats")
plt.ylim(0, None)
plt.show()

# %% [markdown]
# **The claim**: the last row is worse after the prior's own rows than after real ones, and the
# worse the more of them it wrote itself (the slope of the line above), each by more than three
# standard errors.

# %%
apart = last[0].mean() - last[7].mean()
error = np.hypot(mean_error(last[0])[1], mean_error(last[7])[1])
print(
    f"last row: {last[0].mean():.2f} nats after its own rows, {last[7].mean():.2f} after real ones"
)
print(f"difference {apart:.2f} ± {error:.2f} (a standard error)")
assert apart > 3 * error

weights = np.array(given) - np.mean(given)
weights /= (weights**2).sum()  # of least squares
slope = sum(w * m for w, (m, _) in zip(weights, found, strict=True))
error = np.sqrt(sum((w * e) ** 2 for w, (_, e) in zip(weights, found, strict=True)))
print(f"a real row more: {slope:.2f} ± {error:.2f} nats")
assert slope < -3 * error

# %% [markdown]
# ## What it looks like
#
# The canvases that depart most: each step is likely after the step before, and the tint has
# changed on the way.


# %%
def show(grids, title):
    with torch.no_grad():
        sheet = contact_sheet(to_bytes(data.vqvae.decode(grids)))
    plt.figure(figsize=(3.5, 3.5))
    plt.imshow(sheet)
    plt.axis("off")
    plt.title(title)
    plt.show()


worst = torch.from_numpy(reverse.sum(1).argsort()[::-1][:16].copy())
show([real[0][:16]], "the oracle's")
show([own[0][worst]], "the prior's that depart most")

# %% [markdown]
# ## Exercises
#
# 1. Sample at temperature 0.8. Is the last row's excess gone? What does it cost on real canvases?
#    Find both divergences of the cooled prior, in nats of each canvas.
# 2. Where does the drift begin? For each canvas of `own`, find the row that departs most.
#
# Tests to call with your answers:


# %%
def check_1(cold_reverse, cold_forward):
    """Of each canvas, nats: log G - log p of cold samples, log p - log G of real ones; (COUNT,)."""
    for less, more, what in (
        (cold_reverse, reverse.sum(1), "cold samples are likelier to the oracle"),
        (forward.sum(1), cold_forward, "a cold prior is a worse likelihood: at what temperature?"),
    ):
        (a, a_error), (b, b_error) = mean_error(less), mean_error(more)
        assert b - a > 3 * np.hypot(a_error, b_error), what
    print("1. right")


def check_2(rows):
    """Row 0 to 7 of each canvas that departs most, int (COUNT,)."""
    most = np.take_along_axis(reverse, np.asarray(rows)[:, None], 1)[:, 0]
    assert (most == reverse.max(1)).all()
    print("2. right")


# %% [markdown]
# ## Solutions

# %%
# 1. G at a temperature is another distribution: take both log-probs at it.
T = 0.8
cold = joint.draw(prior, COUNT, noise, temperature=T)
with torch.no_grad():
    ratio = torch.cat(
        [prior[0].log_prob(g, temperature=T) - oracle[0].log_prob(g) for g in cold[0].split(250)]
    )
    cost = torch.cat(
        [oracle[0].log_prob(g) - prior[0].log_prob(g, temperature=T) for g in real[0].split(250)]
    )
cold_reverse, cold_forward = ratio.sum(2).numpy(), cost.sum((1, 2)).numpy()
print(
    f"reverse {reverse.sum(1).mean():.1f} -> {cold_reverse.sum(1).mean():.1f}, "
    f"last row {reverse[:, 7].mean():.2f} -> {cold_reverse[:, 7].mean():.2f}"
)
print(f"forward {forward.sum(1).mean():.1f} -> {cold_forward.mean():.1f}")
check_1(cold_reverse.sum(1), cold_forward)

# 2.
rows = reverse.argmax(1)
check_2(rows)
print("share of canvases whose worst row is row 1 to 8:", (np.bincount(rows) / COUNT).round(2))
later = (rows >= 4).mean()
assert later - 0.5 > 3 * np.sqrt(later * (1 - later) / COUNT)
