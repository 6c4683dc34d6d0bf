# %% [markdown]
# # 1. An image as a sequence of codes
#
# A VQ-VAE writes a picture as a grid of codes; read row by row it is a sentence of 64 words. What
# is a word worth? How much of a sentence can be guessed from what came before?

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
COUNT = 200 if FAST else 1000

mnist = bundle.load("mnist")
layout = mnist.layout
test = torch.from_numpy(mnist.split("test")[:COUNT].astype(np.int64))  # (COUNT, 64)


def show(codes, title=""):
    """A sheet of decoded canvases, int64 (N, 64)."""
    with torch.no_grad():
        images = to_bytes(mnist.vqvae.decode(layout.unflatten(codes)))
    plt.figure(figsize=(4, 4))
    plt.imshow(contact_sheet(images))
    plt.axis("off")
    plt.title(title)
    plt.show()


print(test[0].view(8, 8).numpy())
show(test[:16], "16 test digits, decoded from 64 codes each")

# %% [markdown]
# ## A code's place
#
# Change one code of each canvas to another that occurs there, and look at where pixels move. The
# decoder is a convolutional net: a code reaches a little beyond its own 4x4 pixels, and no
# further.

# %%
row, column = 4, 3
others = test[torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))]
changed = test.clone()
changed[:, row * 8 + column] = others[:, row * 8 + column]
with torch.no_grad():
    before, after = (mnist.vqvae.decode(layout.unflatten(c[:200])) for c in (test, changed))
moved = (after - before).abs().mean((0, 1))  # (32, 32)

plt.figure(figsize=(3.2, 3))
plt.imshow(moved, cmap="Greys")
plt.title("pixels that one code moves")
plt.grid(False)
plt.colorbar()
plt.show()

inside = moved[row * 4 - 8 : row * 4 + 12, column * 4 - 8 : column * 4 + 12].sum() / moved.sum()
print(f"{inside:.0%} of the movement is within 8 pixels of the code's own")
assert inside > 0.9

# %% [markdown]
# ## How well can a code be guessed?
#
# Three distributions over canvases, from dumb to clever. Their *negative log-likelihood* on
# digits that none of them has seen says how many nats a canvas costs:
#
# - uniform: every code alike, 64 x log 64 nats;
# - frequencies: how often each code occurs at each place in training, and nothing of its
#   neighbours;
# - the prior: a PixelCNN that reads all codes before.

# %%
train = torch.from_numpy(mnist.split("train")[:].astype(np.int64))


def frequencies(train, num_codes):
    """log-probs (cells, codes) of each code at each place; each counts once more than it occurs."""
    counts = torch.nn.functional.one_hot(train, num_codes).sum(0) + 1.0
    return (counts / counts.sum(1, keepdim=True)).log()


table = frequencies(train, layout.num_codes)
costs = {
    "uniform": torch.full((COUNT,), 64 * np.log(layout.num_codes)),
    "frequencies": -table.gather(1, test.T).sum(0),
    "prior": -joint.total_log_prob(mnist.priors, layout.unflatten(test)),
}
for name, nats in costs.items():
    bits = nats.mean() / 64 / np.log(2)
    print(f"{name:12} {nats.mean():6.1f} nats a canvas, {bits:.2f} bits a code")

# %% [markdown]
# **The claim**: reading what came before saves more than a quarter of what frequencies leave. The
# difference is taken canvas by canvas, so its standard error is small.

# %%
saved = (costs["frequencies"] - costs["prior"]).numpy()
error = saved.std(ddof=1) / np.sqrt(COUNT)
print(f"saved {saved.mean():.1f} ± {error:.1f} nats (a standard error)")
assert saved.mean() > 3 * error
assert costs["prior"].mean() < costs["frequencies"].mean() * 0.75

with torch.no_grad():
    by_cell = -mnist.priors[0].log_prob(test.view(-1, 8, 8)).mean(0)
plt.figure(figsize=(3.2, 3))
plt.imshow(by_cell, cmap="cividis")
plt.title("nats of each cell, by the prior")
plt.grid(False)
plt.colorbar()
plt.show()

# %% [markdown]
# The border is cheap: it is black. The middle, where strokes turn, is dear.
#
# ## A sentence begun
#
# The prior goes on from any prefix: here the upper half of a digit, four times.

# %%
begun = test[:4].repeat_interleave(4, 0)
begun[:, 32:] = layout.empty
noise = torch.Generator().manual_seed(0)
completed = joint.sample(mnist.priors, layout.unflatten(begun), generator=noise)
assert (layout.flatten(completed)[:, :32] == begun[:, :32]).all()
show(layout.flatten(completed), "rows: four ways to go on from the same upper half")

# %% [markdown]
# ## Exercises
#
# 1. How many nats does the *second half* of a canvas cost, given the first? And how many without
#    it, by frequencies?
# 2. Write `neighbour(train)`: log-probs of a code given the code to its left alone. Which says
#    more of a code: its neighbour, or its place?
#
# ## Solutions

# %%
# 1.
with torch.no_grad():
    lower = -mnist.priors[0].log_prob(test.view(-1, 8, 8))[:, 4:].sum((1, 2)).mean()
alone = -table.gather(1, test.T)[32:].sum(0).mean()
print(f"lower half: {lower:.1f} nats given the upper, {alone:.1f} by frequencies")
assert lower < alone


# 2.
def neighbour(train, num_codes):
    """log-probs (codes, codes) of a code given the one to its left."""
    grid = train.view(-1, 8, 8)
    pairs = grid[:, :, :-1] * num_codes + grid[:, :, 1:]
    counts = torch.bincount(pairs.flatten(), minlength=num_codes**2).view(num_codes, -1) + 1.0
    return (counts / counts.sum(1, keepdim=True)).log()


left = neighbour(train, layout.num_codes)
grid = test.view(-1, 8, 8)
rest = -left[grid[:, :, :-1], grid[:, :, 1:]].sum((1, 2))
first = -table.gather(1, test.T).T.view(-1, 8, 8)[:, :, 0].sum(1)
print(f"neighbour: {(first + rest).mean():.1f} nats")  # the place says more than the neighbour
assert costs["prior"].mean() < (first + rest).mean() < costs["uniform"].mean()
