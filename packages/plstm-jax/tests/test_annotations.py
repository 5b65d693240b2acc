"""The annotated shapes are true: the suite's checks run with every annotation enforced."""

import subprocess
import sys
from pathlib import Path

ADAPTER = Path(__file__).parents[1] / "conformance" / "adapter.py"
MODULES = (
    *(f"plstm_jax.{name}" for name in ("functional", "layers", "blocks", "models")),
    *(f"plstm_jax.{name}" for name in ("formulas", "graphs", "parameters", "pretrained", "running", "scope")),
    *(f"plstm_jax.ops.{name}" for name in ("_plstm_1d.op", "_plstm_1d.step", "_plstm_2d.op", "_plstm_graph.op")),
)


def test_annotations_hold() -> None:
    command = [sys.executable, "-m", "plstm_testing.conformance.annotations", str(ADAPTER), *MODULES]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
