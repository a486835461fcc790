"""Importing the library is cheap and changes no state."""

import subprocess
import sys

import synthgrad

# Not numpy: jaxtyping imports it where there is one.
HEAVY = ["synthgrad_lab", "matplotlib", "tensorboard", "pooch", "rich", "tyro", "ray", "zmq"]
PROGRAM = """
import sys, torch
def state():
    return (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(), torch.get_rng_state().tolist())
before, loaded = state(), set(sys.modules)
import synthgrad
assert state() == before
print(*{name.partition(".")[0] for name in set(sys.modules) - loaded})
"""


def test_import_is_light_and_changes_nothing():
    added = subprocess.check_output([sys.executable, "-W", "error", "-c", PROGRAM], text=True).split()
    assert "synthgrad" in added
    assert not set(added) & set(HEAVY)


def test_public_names():
    for name in ("Interface", "decouple", "Cut", "unlocked", "fused", "compare", "probe", "Quality", "models"):
        assert hasattr(synthgrad, name)
