# %% [markdown]
# # 3. Policy gradients on pictures, from scratch
#
# An episode writes a picture, and a discriminator pays at its end. REINFORCE makes what was paid
# well more likely. Here it is in sixty lines on the public environment, with nothing of the
# package's agents; then a look at what makes it work at all: variance.

# %%
import copy
import os

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch

from ral_env.nets import joint
from ral_env.picture import contact_sheet, to_bytes

plt.style.use("../docs.mplstyle")
FAST = os.environ.get("FAST") == "1"
BATCH = 32

# %% [markdown]
# ## The sixty lines
#
# The gradient of the mean reward is E[R grad log G(x)] (the paper's Eq. 2 with one reward
# at the end). From a batch of canvases it is estimated by the mean of A_i grad log G(x_i),
# where the *advantage* A_i is the reward less a baseline that does not depend on canvas i.


# %%
class Reinforce:
    """REINFORCE for the priors of a vector environment's bundle.

    Args:
        envs: a vector environment in lockstep.
        baseline: what is taken off a canvas's reward: "none", or "leave-one-out", the mean of the
            others'.
        rate: of Adam.
        seed: of all noise.
    """

    def __init__(self, envs, baseline="leave-one-out", rate=1e-3, seed=0):
        self.envs, self.layout, self.baseline = envs, envs.layout, baseline
        self.policy = torch.nn.ModuleList(copy.deepcopy(envs.bundle.priors))
        self.policy.eval()  # no dropout: the policy that is sampled is the one that learns
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=rate)
        self.noise = torch.Generator().manual_seed(seed)

    def rollout(self):
        """Canvases that the policy writes, a grid a level, and their rewards (B,)."""
        canvas, _ = self.envs.reset()
        grids = joint.sample(self.policy, self.layout.as_grids(canvas), generator=self.noise)
        _, rewards, _, _, _ = self.envs.complete(self.layout.flatten(grids).numpy())
        return grids, torch.from_numpy(np.asarray(rewards, np.float32))

    def advantages(self, rewards):
        """Rewards (B,) less their baseline."""
        if self.baseline == "none":
            return rewards
        return (rewards - rewards.mean()) * len(rewards) / (len(rewards) - 1)

    def step(self):
        """One rollout, one update; gives the mean reward and the entropy, nats per canvas."""
        grids, rewards = self.rollout()
        log_prob = sum(level.sum((1, 2)) for level in joint.log_prob(self.policy, grids))
        advantages = self.advantages(rewards)
        loss = -(advantages / advantages.std().clamp(min=1e-6) * log_prob).mean()
        self.optimizer.zero_grad()
        (loss / self.layout.length).backward()
        self.optimizer.step()
        return rewards.mean().item(), -log_prob.mean().item()


def make_envs(batch=BATCH):
    """Environments of digits, with the bundle's fixed discriminator."""
    made = gym.make_vec("ral_env:RALDigits-v0", num_envs=batch, autoreset_mode="disabled")
    return made.unwrapped


# %% [markdown]
# It learns: the mean reward of the policy's canvases rises, against the discriminator as it is.

# %%
ITERATIONS = 25 if FAST else 300
agent = Reinforce(make_envs())
_, first = zip(*(agent.rollout() for _ in range(8)), strict=True)
before = torch.cat(first)
history = [agent.step() for _ in range(ITERATIONS)]
grids, last = zip(*(agent.rollout() for _ in range(8)), strict=True)
after = torch.cat(last)

figure, axes = plt.subplots(1, 2, figsize=(7, 2.8))
rewards, entropies = zip(*history, strict=True)
for axis, values, name in zip(
    axes, (rewards, entropies), ("mean reward", "entropy, nats"), strict=True
):
    axis.plot(values, marker="")
    axis.set(xlabel="iteration", ylabel=name)
plt.show()

gain = (after.mean() - before.mean()).item()
error = (before.var() / len(before) + after.var() / len(after)).sqrt().item()
print(f"reward {before.mean():+.3f} before, {after.mean():+.3f} after: {gain:+.3f} ± {error:.3f}")
assert gain > 3 * error

with torch.no_grad():
    sheet = contact_sheet(to_bytes(agent.envs.bundle.vqvae.decode([g[:16] for g in grids[0]])))
plt.figure(figsize=(3.5, 3.5))
plt.imshow(sheet)
plt.axis("off")
plt.title("after")
plt.show()

# %% [markdown]
# The reward is as high as it can be, and at full length the *pictures* are stripes, one like
# another: the policy has found what this discriminator, which learns no more, likes best. That is
# the next notebook's subject.
#
# ## Variance
#
# The same policy, many batches, no learning: each batch gives an estimate of one and the same
# gradient. How far do estimates scatter around their mean, with and without a baseline?
#
# A baseline is free to be anything that does not depend on the canvas's own codes, since
# E[grad log G] = 0. So both estimate the same gradient; only the noise differs. We take the
# same batches for both, and the gradient of the last layer alone, to keep it small.

# %%
ESTIMATES = 24 if FAST else 300
envs = make_envs(16)
still = {name: Reinforce(envs, name, seed=1) for name in ("none", "leave-one-out")}
weights = list(still["none"].policy[0].parameters())[-2:]
gradients = {name: [] for name in still}
for _ in range(ESTIMATES):
    grids, rewards = still["none"].rollout()
    log_prob = joint.log_prob(still["none"].policy, grids)[0].sum((1, 2))
    for name, learner in still.items():
        loss = -(learner.advantages(rewards) * log_prob).mean()
        found = torch.autograd.grad(loss, weights, retain_graph=True)
        gradients[name].append(torch.cat([g.flatten() for g in found]))
gradients = {name: torch.stack(found) for name, found in gradients.items()}

scatter = {
    name: (found - found.mean(0)).square().sum(1) for name, found in gradients.items()
}  # of each estimate, its squared distance to the mean
for name, found in scatter.items():
    size = gradients[name].mean(0).norm()
    print(f"{name:14} variance {found.mean():9.2f}, size of the mean gradient {size:.2f}")

# %% [markdown]
# **The claim**: the baseline takes away variance (the difference is paired, by batch), and no
# more than that: the two mean gradients differ by less than their noise allows.

# %%
less = (scatter["none"] - scatter["leave-one-out"]).numpy()
error = less.std(ddof=1) / np.sqrt(len(less))
print(f"variance taken away: {less.mean():.2f} ± {error:.2f}")
assert less.mean() > 3 * error

apart = gradients["none"] - gradients["leave-one-out"]
distance = apart.mean(0).norm().item()
expected = ((apart - apart.mean(0)).square().sum(1).mean() / len(apart)).sqrt().item()
print(f"mean gradients differ by {distance:.2f}; noise alone makes about {expected:.2f}")
assert distance < 2 * expected

# %% [markdown]
# ## Exercises
#
# 1. Variance by batch size: what share does a batch of 64 leave of that of 16, without a baseline?
#    Predict it, then measure it from `gradients["none"]`.
# 2. Write `others(rewards)`: each reward less the mean of the *others*, with a loop. Show by hand
#    that it is what the factor B / (B - 1) in `advantages` makes of "less the mean of all".
# 3. Why is `self.policy.eval()` there? Show what dropout would break by log-probs of the same
#    canvases, taken twice.
#
# Tests to call with your answers:


# %%
def check_1(predicted, measured):
    """Shares of the variance."""
    noise = 0.45 if FAST else 0.15  # few estimates tell a variance roughly
    assert abs(measured - predicted) < noise and 0 < predicted < 0.5
    print("1. right")


def check_2(others):
    """Rewards (B,) to advantages (B,)."""
    rewards = torch.randn(5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(others(rewards), still["leave-one-out"].advantages(rewards), atol=1e-6)
    print("2. right")


def check_3(once, again):
    """log G of the same canvases (B,), twice."""
    assert once.shape == again.shape and not torch.allclose(once, again)
    policy, grids = still["none"].policy, still["none"].rollout()[0]
    assert not policy.training, "set it back to eval()"
    with torch.no_grad():
        same = [joint.log_prob(policy, grids)[0] for _ in range(2)]
    assert torch.equal(*same)
    print("3. right")


# %% [markdown]
# ## Solutions

# %%
# 1. A mean of 4 times as many independent terms has a quarter of the variance.
none = gradients["none"][: len(gradients["none"]) // 4 * 4]
larger = none.view(-1, 4, none.shape[1]).mean(1)  # batches of 64
ratio = (larger.var(0).sum() / none.var(0).sum()).item()
print(f"a batch of 64 has {ratio:.2f} of the variance of one of 16")
check_1(1 / 4, ratio)


# 2. With the sum S of all: R_i - (S - R_i) / (B - 1) = (R_i B - S) / (B - 1)
#    = (R_i - S / B) B / (B - 1).
def others(rewards):
    """Rewards (B,) less the mean of the others."""
    places = range(len(rewards))
    return torch.stack([rewards[i] - rewards[[j for j in places if j != i]].mean() for i in places])


check_2(others)

# 3. log G of a canvas would be that of another net than the one that wrote it: the gradient of
#    nothing. With dropout, one and the same canvas has another likelihood each time:
grids, _ = still["none"].rollout()
policy = still["none"].policy
policy.train()
with torch.no_grad():
    twice = [joint.log_prob(policy, grids)[0].sum((1, 2)) for _ in range(2)]
policy.eval()
check_3(*twice)
