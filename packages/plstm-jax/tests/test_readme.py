"""Every example of the README runs as it stands."""

from pathlib import Path

from plstm_testing.conformance import readme

test_examples_run = readme.example_test(Path(__file__).parents[1] / "README.md")
