# %% [markdown]
# # 6. Beat the baseline
#
# An exercise with a grader. Submit anything that writes digits; you win if they are nearer to real
# digits than the prior's are. The grader is `ral grade`, which knows old tricks, and refuses them.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.grade import Grader
from benchmarks.leaderboard.entries import Contender
from ral_env.nets import joint
from ral_env.nets.resample import resample, score
from ral_env.picture import contact_sheet

plt.style.use("../docs.mplstyle")
grader = Grader("RALDigits-v0")
digits = grader.bundle

# %% [markdown]
# ## The rules
#
# A submission is a function of a count and a seed that gives canvases, int64 (count, h, w) a
# level. It may use everything in the bundle but the test split. The grader draws as many as a row
# of the id's reference scores has, and gives one number,
#
#     score = 100 (FD_prior - FD) / (FD_prior - FD_real)
#
# of Fréchet distances to the test split: 0 is the prior, 100 is as near as real training digits.
# Without these there is no number:
#
# - **coverage**: at least 0.85 of what real digits or the prior reach, whichever is less;
# - **diversity**: pairs of equal codes at most 1.2 times as frequent. A cooled prior of digits
#   covers *more*, so coverage alone does not see it;
# - **no copies**: even of the twentieth that is nearest to training digits, or to test digits, the
#   distance must be 0.85 of what it is for real ones.
#
# You win if the whole 95 % interval is above 0.


# %%
def baseline(count, seed):
    """The prior as it is."""
    return joint.draw(digits.priors, count, torch.Generator().manual_seed(seed))


def grade(submission, seed=0):
    """Print what was found of a submission."""
    found = grader.grade(Contender(draw=submission), submission.__name__, seed)
    print(found.text(), "\n\nit wins\n" if found.beats_prior else "\n\nit does not win\n")
    return found


# %% [markdown]
# ## The grader is not fooled
#
# The claims: the baseline does not beat itself; copies of training digits are refused, though they
# are real digits and as near as can be; so are cold samples, which are cleaner one by one, and
# cover more.

# %%
honest = grade(baseline, seed=1)
assert not honest.refused and not honest.beats_prior


def copies(count, seed):
    """Training digits."""
    rows = np.random.default_rng(seed).choice(len(grader.train), count)
    return digits.layout.as_grids(grader.train[np.sort(rows)])


assert grade(copies).refused == ["it copies training canvases"]


def cold(count, seed):
    """The prior, cold."""
    return joint.draw(digits.priors, count, torch.Generator().manual_seed(seed), temperature=0.5)


assert grade(cold).refused == ["its canvases are alike, as cooled or repeated ones are"]

# %% [markdown]
# ## Your turn
#
# Write `mine`, and grade it. Ideas, from cheap to dear: resample by the bundle's discriminator;
# train a discriminator that sees more; fine-tune with `agents.reinforce.train` or
# `agents.rounds.train`, and submit what `result.policies` sample. What you have trained with
# `ral train` is graded by `ral grade --env RALDigits-v0 --bundle runs/mine`.


# %%
def mine(count, seed):
    """Replace this."""
    return baseline(count, seed)


# grade(mine)

# %% [markdown]
# ## A solution
#
# One of sixteen candidates is kept, with chance in proportion to exp(score): sixteen times the
# sampling, no training. The claim is the grader's: it is accepted, and the whole interval of its
# score lies above 0.


# %%
def one_of_sixteen(count, seed):
    """Sampling importance resampling, by the bundle's own discriminator."""
    noise = torch.Generator().manual_seed(seed)
    grids = joint.draw(digits.priors, 16 * count, noise)
    scores = score(digits.discriminator, digits.vqvae, grids, digits.discriminator_input)
    return resample(grids, scores, 16, noise)


solution = grade(one_of_sixteen)
assert solution.beats_prior

figure, axes = plt.subplots(1, 2, figsize=(7, 3.6))
for axis, found in zip(axes, (honest, solution), strict=True):
    images = grader.evaluator.images([grid[:36] for grid in found.evaluation.grids])
    axis.imshow(contact_sheet(((images + 1) * 127.5).clamp(0, 255).byte().numpy()))
    axis.set_title(f"{found.name}: {found.score:.0f}")
    axis.axis("off")
plt.show()

# %% [markdown]
# The grader's interval is wide: it has a thousand canvases, and 300 test digits. Of four times as
# many canvases, beside as many of the baseline, the claim is beyond three standard errors.

# %%
ours, theirs = (
    grader.evaluator.evaluate_canvases(draw(4000, 5)) for draw in (one_of_sixteen, baseline)
)
(apart,) = grader.evaluator.fd_differences(ours, theirs).values()
error = (apart.high - apart.low) / (2 * 1.96)  # of the 95 % interval, a paired bootstrap's
print(f"Fréchet distance less the baseline's: {apart.value:+.2f} ± {error:.2f}")
assert apart.value < -3 * error

# %% [markdown]
# Beat that at the cost of *one* pass: `ral train --env RALDigits-v0 --algo rounds` comes near it
# in some minutes, and 1 of 16 on top of it goes further ([rounds](../rounds.md)).
