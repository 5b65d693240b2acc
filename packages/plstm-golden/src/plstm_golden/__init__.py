"""Recordings of pLSTM: arrays that the original research code wrote in float64, and a few of this project's.

The package is data. `plstm_testing.golden` reads it; what the files hold is described in ``recordings/README.md``.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable

from plstm_golden.version import __version__

__all__ = ["__version__", "folder"]


def folder() -> Traversable:
    """The folder of the recordings: `index.json` and one archive of arrays for each case.

    Returns:
        The folder, which may lie within an archive.

    Examples:
        >>> (folder() / "index.json").is_file()
        True
    """
    return files("plstm_golden") / "recordings"
