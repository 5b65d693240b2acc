"""`python -m plstm_jax check` compares every op on this machine with the numpy reference."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from plstm_jax.check import DTYPES, available_devices, run_checks
from plstm_jax.version import __version__


def main(
    arguments: Sequence[str] | None = None,
    *,
    prog: str = "python -m plstm_jax",
    description: str = "pLSTM in pure JAX",
    version: str = __version__,
) -> int:
    """Run the command line; that of libraries with the same ops, too.

    Args:
        arguments: what follows the program's name; taken from the process if None.
        prog: the program's name.
        description: what its package is.
        version: and its version.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="compare every op on this machine with the numpy reference")
    check.add_argument("--devices", nargs="+", choices=available_devices(), help="default: all of this machine")
    check.add_argument("--dtypes", nargs="+", choices=DTYPES, help="default: all")
    check.add_argument("--quick", action="store_true", help="compile without optimization")
    options = parser.parse_args(arguments)
    return run_checks(options.devices, options.dtypes, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
