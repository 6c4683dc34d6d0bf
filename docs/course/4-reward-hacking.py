# %% [markdown]
# # 4. An adversarial reward, and how it is hacked
#
# A discriminator has learnt to tell real digits from the *prior's*. A policy that is paid by its
# score soon leaves the prior; the discriminator has never seen where it goes, and its scores
# there mean nothing. The policy finds where they are high. The score goes up, the pictures get
# worse.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import torch

from agents import reinforce
from agents.evaluation import metrics
from agents.evaluation.evaluator import Evaluator, TemperedPrior
from agents.training.discriminator import DiscriminatorTraining
from ral_env import bundle
from ral_env.nets.resample import score
from ral_env.picture import contact_sheet, to_bytes

plt.style.use("../docs.mplstyle")
FAST = os.environ.get("FAST") == "1"
ITERATIONS = 60 if FAST else 400
COUNT = 300 if FAST else 2000

digits = bundle.load("digits")
evaluator = Evaluator(digits)


# %% [markdown]
# ## Two arms
#
# The same loop, twice. In the first arm the discriminator is the bundle's, for ever. In the
# second it goes on learning, from real digits against what the policy writes *now*, and a
# likelihood term, the *anchor*, holds the policy to real digits. As it learns we look at what no
# arm was trained on: the Fréchet distance to held-out digits.


# %%
def watch(iteration, policies):
    """Figures of the policy: the score by the bundle's discriminator, and the Fréchet distance."""
    found = evaluator.evaluate_prior(TemperedPrior(policies), 200, seed=1).figures
    return {"fixed_score": found["score"], "fd": found["fd"]}


def train(**changes):
    """REINFORCE on whole canvases, by a discriminator that sees codebook vectors."""
    settings = {
        "env": "RALDigits-v0", "start": "full", "iterations": ITERATIONS, "canvases": 32,
        "gamma": 1.0, "baseline": "leave-one-out", "standardise": True, "learning_rate": 1e-3,
        "discriminator_input": "codes", "discriminator_net": None,
        "discriminator_warmup": 0, "discriminator_updates": 0,
    }  # fmt: skip
    config = reinforce.Config(**settings | changes)
    return reinforce.train(config, progress=False, watch=watch, watch_every=ITERATIONS // 6)


LEARNS = {
    "discriminator_updates": 2, "fake_pool": 4,
    "discriminator": DiscriminatorTraining(
        loss="logistic", learning_rate=1e-3, r1=0.1, shift=1, drop=0.05
    ),
}  # fmt: skip
ANCHOR = {"mle_coef": 0.3}
hacked = train()
held = train(**LEARNS, **ANCHOR)

figure, axes = plt.subplots(1, 2, figsize=(7, 2.8))
start = watch(0, digits.priors)
for name, result in (("fixed discriminator", hacked), ("it learns, with an anchor", held)):
    rows = [row for row in result.history if "fd" in row]
    for axis, figure_name in zip(axes, ("fixed_score", "fd"), strict=True):
        axis.plot(
            [0, *(row["iteration"] for row in rows)],
            [start[figure_name], *(row[figure_name] for row in rows)],
            label=name,
        )
axes[0].set(xlabel="iteration", ylabel="score by the bundle's discriminator")
axes[1].set(xlabel="iteration", ylabel="Fréchet distance", ylim=(0, None))
axes[1].legend(loc="center right")
plt.show()

# %% [markdown]
# ## The claim
#
# By the very discriminator that paid, the hacked policy's canvases are better than the prior's.
# By everything else they are worse: they are further from real digits than the prior's, and than
# those of the arm that is held. All of it by more than three standard errors.

# %%
arms = {"prior": digits.priors, "hacked": hacked.policies, "held": held.policies}
found = {n: evaluator.evaluate_prior(TemperedPrior(p), COUNT, seed=2) for n, p in arms.items()}
scores = {
    name: score(digits.discriminator, digits.vqvae, each.grids, digits.discriminator_input).numpy()
    for name, each in found.items()
}
for name, each in found.items():
    shown = {k: round(each.figures[k], 2) for k in ("fd", "precision", "coverage", "entropy")}
    print(f"{name:7} raw score {scores[name].mean():+.2f}, {shown}")

gain = scores["hacked"].mean() - scores["prior"].mean()
error = np.hypot(*(scores[n].std(ddof=1) / np.sqrt(COUNT) for n in ("hacked", "prior")))
print(f"score {gain:+.2f} ± {error:.2f} (a standard error)")
assert gain > 3 * error


def further(a, b):
    """By how much a's Fréchet distance exceeds b's, in standard errors: a paired bootstrap's."""
    (apart,) = evaluator.fd_differences(found[a], found[b]).values()
    error = (apart.high - apart.low) / (2 * 1.96)  # of the 95 % interval
    print(f"distance, {a} less {b}: {apart.value:+.1f} ± {error:.1f}")
    return apart.value / error


assert further("hacked", "prior") > 3
assert further("hacked", "held") > 3

# %%
figure, axes = plt.subplots(1, 3, figsize=(8, 2.9))
for axis, (name, each) in zip(axes, found.items(), strict=True):
    with torch.no_grad():
        images = digits.vqvae.decode([grid[:25] for grid in each.grids])
    axis.imshow(contact_sheet(to_bytes(images)))
    axis.set_title(name)
    axis.axis("off")
plt.show()

# %% [markdown]
# Given time, a policy against a fixed discriminator ends in one picture, written for ever.
#
# How would you have noticed *without* a distance? The entropy falls, canvases look alike, and a
# fresh discriminator, trained for a moment against the new policy, tells them from real digits
# easily: the AUC of the one that learns beside the policy is in `progress.csv` for that.
#
# ## Exercises
#
# 1. Show that the policies' canvases have become alike, by `metrics.diversity`.
# 2. Is it the discriminator's learning or the anchor that holds the second arm? Train two more
#    arms, each with one of them, and add them to `found` as "learns" and "anchor".
#
# Tests to call with your answers:


# %%
def check_1(alike):
    """Diversity of each of `found`, by its name."""
    for name, each in found.items():
        flat = digits.layout.flatten(each.grids)
        half = len(flat) // 2
        differ = (flat[:half] != flat[half : 2 * half]).float().mean().item()  # of some pairs
        assert abs(alike[name] - differ) < 0.03, f"{name}: of all pairs it is about {differ:.2f}"
    assert alike["hacked"] < alike["prior"]
    print("1. right")


def check_2():
    """Either holds the policy somewhat: both arms are nearer to real digits than the hacked."""
    assert further("hacked", "learns") > 3 and further("hacked", "anchor") > 3
    print("2. right")


# %% [markdown]
# ## Solutions

# %%
# 1. The share of pairs of canvases that differ in a cell.
alike = {name: metrics.diversity(digits.layout.flatten(each.grids)) for name, each in found.items()}
print({name: round(value, 3) for name, value in alike.items()})
check_1(alike)

# 2. At full length only: two more runs.
if not FAST:
    for name, changes in (("learns", LEARNS), ("anchor", ANCHOR)):
        policies = TemperedPrior(train(**changes).policies)
        found[name] = evaluator.evaluate_prior(policies, COUNT, seed=2)
        each = found[name].figures
        print(name, {k: round(each[k], 2) for k in ("fd", "precision", "coverage", "entropy")})
    check_2()

# %% [markdown]
# Each holds somewhat: with the discriminator's learning alone the distance is a quarter of the
# hacked policy's, with the anchor alone two thirds. Only with both the policy covers what the prior
# did.
