# %% [markdown]
# # 5. Divergences, temperature, and the frontier
#
# "Our samples are better" can mean many things. Where the true distribution p is known, two of
# them are exact numbers: the forward and the reverse KL. Temperature trades one for the other, so
# a single pair of figures ranks nearly any two generators either way. A *frontier* does not.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import torch

from agents.evaluation import metrics
from ral_env import bundle
from ral_env.nets import joint

plt.style.use("../docs.mplstyle")
FAST = os.environ.get("FAST") == "1"
COUNT = 800 if FAST else 5000
TEMPERATURES = (
    (0.6, 0.7, 0.85, 1.0) if FAST else (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05)
)

data = bundle.load("oracle")
real = joint.draw(data.oracles, COUNT, torch.Generator().manual_seed(0))
real_log_oracle = joint.total_log_prob(data.oracles, real)


def measure(priors, temperature, seed=1):
    """All that the oracle tells of a generator at a temperature: estimates by name."""
    noise = torch.Generator().manual_seed(seed)
    own = joint.draw(priors, COUNT, noise, temperature)
    return metrics.divergences(
        joint.total_log_prob(priors, own, temperature),
        joint.total_log_prob(data.oracles, own),
        joint.total_log_prob(priors, real, temperature),
        real_log_oracle,
    )


# %% [markdown]
# ## Temperature
#
# Each figure is a mean over canvases, with its standard error.

# %%
prior = {t: measure(data.priors, t) for t in TEMPERATURES}
names = ("forward_kl", "reverse_kl", "nll_oracle", "entropy", "oracle_entropy")
print("temperature", *names)
for t, found in prior.items():
    print(f"{t:11.2f}", *(f"{found[n].value:7.1f} ± {found[n].error:.1f}" for n in names))

figure, axis = plt.subplots(figsize=(5, 3))
for name in ("forward_kl", "reverse_kl"):
    values = [prior[t][name] for t in TEMPERATURES]
    axis.errorbar(
        TEMPERATURES,
        [v.value for v in values],
        [2 * v.error for v in values],
        label=name,
        capsize=2,
    )
axis.set(xlabel="temperature", ylabel="nats per canvas", ylim=(0, None))
axis.legend()
plt.show()

# %% [markdown]
# **The claims**: cooling lowers the reverse and raises the forward KL, each by more than three
# standard errors. And "NLL by the oracle", which is often reported alone, falls *below the
# entropy of the truth itself*: real canvases score worse by it than cold samples do. So it is no
# measure of quality.


# %%
def differs(a, b):
    """a less b in standard errors."""
    return (a.value - b.value) / np.hypot(a.error, b.error)


cold, warm = prior[min(t for t in TEMPERATURES if t >= 0.7)], prior[1.0]
assert differs(warm["reverse_kl"], cold["reverse_kl"]) > 3
assert differs(cold["forward_kl"], warm["forward_kl"]) > 3
assert differs(cold["oracle_entropy"], cold["nll_oracle"]) > 3
print(
    f"at 0.7 samples cost the oracle {cold['nll_oracle'].value:.1f} nats, "
    f"its own samples {cold['oracle_entropy'].value:.1f}"
)

# %% [markdown]
# ## Two generators, and a wrong conclusion
#
# Take a generator that we *know* to be worse: the same prior with noise in its weights. Cooled,
# it has a lower reverse KL than the prior at temperature 1. Someone who compares only those two
# would publish.

# %%
damaged = torch.nn.ModuleList([type(net)(net.config) for net in data.priors]).eval()
noise = torch.Generator().manual_seed(0)
for net, good in zip(damaged, data.priors, strict=True):
    net.load_state_dict(good.state_dict())
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.035 * weight.std() * torch.randn(weight.shape, generator=noise)
worse = {t: measure(damaged, t) for t in TEMPERATURES}

coldest = min(TEMPERATURES)
a, b = worse[coldest]["reverse_kl"], prior[1.0]["reverse_kl"]
print(f"damaged at {coldest}: {a.value:.1f} ± {a.error:.1f}")
print(f"prior at 1.0:   {b.value:.1f} ± {b.error:.1f}")
assert differs(b, a) > 3

# %% [markdown]
# ## The frontier
#
# Draw both KLs against each other, a point a temperature. A generator is better where its curve
# lies nearer to the corner, whatever temperature anyone likes.

# %%
figure, axis = plt.subplots(figsize=(4.5, 3.5))
for name, found in (("prior", prior), ("damaged", worse)):
    axis.plot(
        [f["forward_kl"].value for f in found.values()],
        [f["reverse_kl"].value for f in found.values()],
        label=name,
    )
axis.set(xlabel="forward KL, nats", ylabel="reverse KL, nats", xlim=(0, None), ylim=(0, None))
axis.legend()
plt.show()


def dominated(point, frontier):
    """Whether some point of a frontier is better in both, and beyond 3 standard errors in one."""
    keys = ("forward_kl", "reverse_kl")
    return any(
        all(other[k].value <= point[k].value for k in keys)
        and max(differs(point[k], other[k]) for k in keys) > 3
        for other in frontier.values()
    )


lost = [t for t, point in worse.items() if dominated(point, prior)]
won = [t for t, point in prior.items() if dominated(point, worse)]
print("temperatures at which the damaged prior is dominated:", lost, "and the prior:", won)
assert len(lost) >= len(TEMPERATURES) / 2 and not won

# %% [markdown]
# `ral evaluate` draws such frontiers where no oracle is known: precision by coverage, and Fréchet
# distance by forward NLL.
#
# ## Exercises
#
# 1. `reverse_kl` = `nll_oracle` - `entropy`. Find its standard error from log-probs of your own
#    samples of the prior, and say why it is smaller than that of `nll_oracle`.
# 2. What would both KLs be at temperature 0? Think before you compute.
#
# Tests to call with your answers:


# %%
def check_1(value, error):
    """The reverse KL at temperature 1, and its standard error, from `COUNT` samples."""
    known = prior[1.0]["reverse_kl"]
    assert abs(value - known.value) < 4 * np.hypot(known.error, error)
    assert 0.8 < error / known.error < 1.25, "of the mean of COUNT canvases, each a difference"
    assert error < prior[1.0]["nll_oracle"].error
    print("1. right")


def check_2(reverse, forward):
    """Both KLs at temperature 0."""
    always = joint.draw(data.priors, 1, torch.Generator().manual_seed(3), temperature=0)
    assert np.isclose(reverse, -joint.total_log_prob(data.oracles, always).item(), rtol=1e-3)
    assert forward == np.inf, "what probability has a real canvas?"
    print("2. right")


# %% [markdown]
# ## Solutions

# %%
# 1. log G and log p of one canvas rise and fall together, so their difference varies less.
own = joint.draw(data.priors, COUNT, torch.Generator().manual_seed(2))
apart = joint.total_log_prob(data.priors, own) - joint.total_log_prob(data.oracles, own)
value, error = apart.mean().item(), apart.std().item() / COUNT**0.5
print(f"reverse KL {value:.1f} ± {error:.2f}; of nll_oracle ± {prior[1.0]['nll_oracle'].error:.2f}")
check_1(value, error)

# 2. One canvas for ever: the entropy is 0, so the reverse KL is that canvas's -log p, and the
#    forward KL is infinite, since all real canvases but one have probability 0.
best = joint.draw(data.priors, 1, torch.Generator().manual_seed(0), temperature=0)
reverse = -joint.total_log_prob(data.oracles, best).item()
print(f"reverse KL at 0: {reverse:.1f} nats")
check_2(reverse, np.inf)
