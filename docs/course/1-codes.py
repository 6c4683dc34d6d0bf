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

here = (slice(row * 4 - 8, row * 4 + 12), slice(column * 4 - 8, column * 4 + 12))
inside = moved[here].sum() / moved.sum()
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
# **The claim**: reading what came before saves more than a quarter of what frequencies leave, by
# more than three standard errors. The difference is taken canvas by canvas, so its error is small.

# %%
saved = (costs["frequencies"] - costs["prior"]).numpy()
beyond = saved - costs["frequencies"].numpy() / 4  # a quarter
error = beyond.std(ddof=1) / np.sqrt(COUNT)
print(f"saved {saved.mean():.1f} nats, which is {beyond.mean():.1f} ± {error:.1f} above a quarter")
assert beyond.mean() > 3 * error

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
# 1. How many nats does the *lower half* of a canvas cost, given the upper? And how many by
#    frequencies, without it?
# 2. Write `neighbour(train, num_codes)`: log-probs of a code given the code to its left alone.
#    Which says more of a code: its neighbour, or its place?
#
# Tests to call with your answers:


# %%
def check_1(given, alone):
    """Nats of the lower half given the upper, and by frequencies: means over `test`."""
    upper = by_cell[:4].sum()
    assert np.isclose(upper + given, costs["prior"].mean(), rtol=1e-3), "halves make a whole"
    upper = -table.gather(1, test.T)[:32].sum(0).mean()
    assert np.isclose(upper + alone, costs["frequencies"].mean(), rtol=1e-3), "halves make a whole"
    print("1. right")


def check_2(neighbour):
    """log-probs (codes, codes): of a code, the second index, given the one to its left."""
    steps = torch.arange(8).repeat(1, 8)  # to the right of each code stands the next
    learnt = neighbour(steps, 8)
    assert torch.allclose(learnt.exp().sum(1), torch.ones(8)), "each row is a distribution"
    assert learnt[:7].argmax(1).tolist() == [1, 2, 3, 4, 5, 6, 7], "the first index is the left"
    assert learnt[7].isfinite().all(), "what never occurred is unlikely, not impossible"
    print("2. right")


# %% [markdown]
# ## Solutions

# %%
# 1.
with torch.no_grad():
    lower = -mnist.priors[0].log_prob(test.view(-1, 8, 8))[:, 4:].sum((1, 2)).mean()
alone = -table.gather(1, test.T)[32:].sum(0).mean()
print(f"lower half: {lower:.1f} nats given the upper, {alone:.1f} by frequencies")
check_1(lower, alone)


# 2.
def neighbour(train, num_codes):
    """log-probs (codes, codes) of a code given the one to its left."""
    grid = train.view(-1, 8, 8)
    pairs = grid[:, :, :-1] * num_codes + grid[:, :, 1:]
    counts = torch.bincount(pairs.flatten(), minlength=num_codes**2).view(num_codes, -1) + 1.0
    return (counts / counts.sum(1, keepdim=True)).log()


check_2(neighbour)
left = neighbour(train, layout.num_codes)
grid = test.view(-1, 8, 8)
rest = -left[grid[:, :, :-1], grid[:, :, 1:]].sum((1, 2))
first = -table.gather(1, test.T).T.view(-1, 8, 8)[:, :, 0].sum(1)
print(f"neighbour: {(first + rest).mean():.1f} nats, place: {costs['frequencies'].mean():.1f}")
more = (first + rest - costs["frequencies"]).numpy()  # the place says more
assert more.mean() > 3 * more.std(ddof=1) / np.sqrt(COUNT)
