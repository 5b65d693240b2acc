"""Many devices: data parallel, parameters spread as FSDP does, the sequence axis spread, and checkpoints on the way."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from plstm_testing.tolerances import assert_close

PROGRAM = Path(__file__).parents[1] / "examples" / "sharded.py"


def losses(*arguments, devices):
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    *steps, places = result.stdout.splitlines()
    assert places.startswith(f"{devices} devices")
    return np.array([float(step.split()[-1]) for step in steps]), places


@pytest.fixture(scope="module")
def on_one_device():
    return losses(devices=1)[0]


@pytest.mark.parametrize("layout", ["data", "sequence"])
def test_losses_are_those_of_one_device(layout, on_one_device):
    found, places = losses("--layout", layout, devices=4)
    assert_close(found, on_one_device, "float32", "module", layout)
    assert "with (64, 32) of a table (64, 32)" in places


def test_a_run_goes_on_on_other_devices(tmp_path, on_one_device):
    first, places = losses("--layout", "fsdp", "--steps", 3, "--checkpoint", tmp_path / "run", devices=4)
    assert "with (64, 8) of a table (64, 32)" in places
    rest, places = losses("--layout", "fsdp", "--steps", 6, "--checkpoint", tmp_path / "run", devices=2)
    assert "with (64, 16) of a table (64, 32)" in places
    assert_close(np.concatenate([first, rest]), on_one_device, "float32", "module", "fsdp")
