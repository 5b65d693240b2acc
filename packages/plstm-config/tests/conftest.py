"""Profiles of hypothesis: `--hypothesis-profile=fuzz` draws other examples each time, and thousands of them."""

from hypothesis import settings

settings.register_profile("fuzz", max_examples=10_000, derandomize=False)
