"""Errors that a user can put right, and packages that only some commands need."""

from importlib import import_module
from types import ModuleType


class UserError(ValueError):
    """Something the user can put right; the command line prints its message as one line and exits with code 2."""


class FailedRunError(RuntimeError):
    """A run that cannot go on; the command line prints its message as one line and exits with code 1."""


def require(module: str, package: str, extra: str = "train") -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: dotted name to import.
        package: name under which the package is installed.
        extra: extra of this package that installs it.

    Returns:
        The module.

    Raises:
        UserError: if it is not installed; the message names the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f'{package} is not installed; run: pip install "plstm-torch[{extra}]"') from error
