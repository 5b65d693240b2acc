"""Every example of the README runs as it stands."""

from pathlib import Path

import pytest

from plstm_testing.conformance import readme

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch.compile's own
test_examples_run = readme.example_test(Path(__file__).parents[1] / "README.md")
