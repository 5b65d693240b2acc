"""What can be wrong with data, and packages that only some data sets need."""

from importlib import import_module
from types import ModuleType


class DatasetError(ValueError):
    """Data or a package is missing, damaged or too small; the message says which, in one line."""


def require(module: str, package: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: dotted name to import.
        package: name under which the package is installed.

    Returns:
        The module.

    Raises:
        DatasetError: if it is not installed; the message names the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise DatasetError(f'{package} is not installed; run: pip install "plstm-testing[datasets]"') from error
