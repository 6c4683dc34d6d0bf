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
ITERATIONS = 60 if FAST else 600
COUNT = 300 if FAST else 2000

digits = bundle.load("digits")
evaluator = Evaluator(digits)


# %% [markdown]
# ## Two arms
#
# The same loop, twice. In the first arm the discriminator is the bundle's, for ever. In the
# second it goes on learning, from real digits against what the policy writes *now*, and a
# likelihood term holds the policy to real digits. As it learns we look at what no arm was trained
# on: the Fréchet distance to held-out digits.


# %%
def watch(iteration, policies):
    """Figures of the policy: the score by the bundle's discriminator, and the Fréchet distance."""
    found = evaluator.evaluate_prior(TemperedPrior(policies), 200, seed=1).figures
    return {"fixed_score": found["score"], "fd": found["fd"]}


def train(**changes):
    """REINFORCE on whole canvases, by a discriminator that sees codebook vectors."""
    settings = {
        "env": "RALDigits-v0", "start": "full", "iterations": ITERATIONS, "canvases": 32,
        "gamma": 1.0, "baseline": "leave-one-out", "standardise": True,
        "discriminator_input": "codes", "discriminator_net": None,
        "discriminator_warmup": 0, "discriminator_updates": 0,
    }  # fmt: skip
    config = reinforce.Config(**settings | changes)
    return reinforce.train(config, progress=False, watch=watch, watch_every=ITERATIONS // 6)


hacked = train(learning_rate=2e-3)
held = train(
    learning_rate=1e-3,
    discriminator_updates=2,
    fake_pool=4,
    mle_coef=0.3,
    discriminator=DiscriminatorTraining(
        loss="logistic", learning_rate=1e-3, r1=0.1, shift=1, drop=0.05
    ),
)

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
# By the very discriminator that paid, the hacked policy's canvases are better than the prior's,
# by more than three standard errors. By everything else they are worse: the whole 95 % interval
# of the difference of distances lies above 0.

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

worse = evaluator.fd_differences(found["hacked"], found["prior"])
print("distance:", {name: str(each) for name, each in worse.items()})
assert all(each.low > 0 for each in worse.values())

better = evaluator.fd_differences(found["held"], found["hacked"])
print("held less hacked:", {name: str(each) for name, each in better.items()})
assert all(each.high < 0 for each in better.values())

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
#    arms, each with one of them.
#
# ## Solutions

# %%
# 1. The share of pairs of canvases that differ in a cell.
alike = {name: metrics.diversity(digits.layout.flatten(each.grids)) for name, each in found.items()}
print({name: round(value, 3) for name, value in alike.items()})
assert alike["hacked"] < alike["prior"]

# 2. At full length only: two more runs.
if not FAST:
    learns = DiscriminatorTraining(loss="logistic", learning_rate=1e-3, r1=0.1, shift=1, drop=0.05)
    for name, changes in (
        ("learns", {"discriminator_updates": 2, "fake_pool": 4, "discriminator": learns}),
        ("anchor", {"mle_coef": 0.3}),
    ):
        result = train(learning_rate=1e-3, **changes)
        each = evaluator.evaluate_prior(TemperedPrior(result.policies), COUNT, seed=2).figures
        print(name, {k: round(each[k], 2) for k in ("fd", "precision", "coverage", "entropy")})
