"""The conformance suite: one set of checks that every backend passes.

A backend joins with one file that defines an `Adapter` under the name `adapter`, and one file of expected failures.
The checks themselves know neither pytest nor any framework; `plugin` and `suite` run them under pytest.
"""

from .adapter import Adapter, ModuleCall, OpCall, Result, load_adapter
from .checks import Check, all_checks

__all__ = ["Adapter", "Check", "ModuleCall", "OpCall", "Result", "all_checks", "load_adapter"]
