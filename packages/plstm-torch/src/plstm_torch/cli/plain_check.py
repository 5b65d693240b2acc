"""`plstm-torch check` where tyro is not installed; its options come from the same settings."""

import argparse
from collections.abc import Sequence
from dataclasses import fields

from plstm_torch.cli.check import check
from plstm_torch.settings.commands import CheckSettings


def main(words: Sequence[str]) -> int:
    """Read the options and check.

    Args:
        words: after `plstm-torch check`.

    Returns:
        The exit code.
    """
    about = 'Compare every op with the numpy reference. More commands: pip install "plstm-torch[train]"'
    parser = argparse.ArgumentParser(prog="plstm-torch check", description=about, epilog=CheckSettings.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for entry in fields(CheckSettings):
        parser.add_argument(f"--{entry.name}", action="append", default=[])
    given = vars(parser.parse_args(list(words)))
    return check(CheckSettings(**{name: tuple(values) for name, values in given.items()}))
