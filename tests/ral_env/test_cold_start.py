"""What an environment may load: each package costs everyone time and memory at each start."""

import json
import subprocess
import sys

import pytest

from ral_env.tasks import TASKS

# Beside the standard library, what `import torch` loads, and this package itself.
MAY_LOAD = {
    "gymnasium", "farama_notifications", "cloudpickle",  # the interface
    "jaxtyping", "wadler_lindig",  # shapes in signatures
    "safetensors",  # weights
}  # fmt: skip
# Parts of torch that it loads for itself only when they are used: each a second and 100 MB.
HEAVY = {"torch._dynamo", "torch._inductor", "torch.onnx", "torch.utils.tensorboard"}

PLAY = """
import json, sys, warnings
import torch
before = set(sys.modules)
import gymnasium
warnings.simplefilter("ignore")
for name in {ids}:
    env = gymnasium.make(f"ral_env:{{name}}", render_mode="rgb_array")
    env.reset(seed=0)
    env.step(0)
env.render()
gymnasium.make_vec("RALDigits-v0", num_envs=2).reset(seed=0)
new = {{m: sys.modules[m] for m in sys.modules if m not in before}}
print(json.dumps([m for m, module in new.items() if getattr(module, "__spec__", None)]))
"""


def loaded(ids: list[str]) -> set[str]:
    """Modules that a fresh process has beside torch's own when it has stepped these ids."""
    code = PLAY.format(ids=ids)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_an_environment_loads_what_it_needs_and_nothing_else():
    modules = loaded(list(TASKS))
    assert "ral_env.envs.single" in modules
    packages = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    ours_of_torch = {"ral_env", "torch", "numpy"}  # more of its own, as it is used
    assert packages - ours_of_torch <= MAY_LOAD
    assert not {m for m in modules if ".".join(m.split(".")[:2]) in HEAVY or m in HEAVY}


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["envs"], []])
def test_what_only_tells_loads_no_torch(words):
    code = (
        f"import sys; from ral_env.cli import main; main({words}); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
