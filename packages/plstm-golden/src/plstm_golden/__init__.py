"""Recordings of pLSTM: arrays that the original research code wrote in float64, and a few of this project's.

The package is data, which `plstm_testing.golden` reads: ``recordings``, described in the README there, and ``folders``,
weights folders that each version of this project wrote.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable

from plstm_golden.version import __version__

__all__ = ["__version__", "earlier_folders", "folder"]


def folder() -> Traversable:
    """The folder of the recordings: `index.json` and one archive of arrays for each case.

    Returns:
        The folder, which may lie within an archive.

    Examples:
        >>> (folder() / "index.json").is_file()
        True
    """
    return files("plstm_golden") / "recordings"


def earlier_folders() -> Traversable:
    """The weights folders of earlier versions: a folder for each version, in it one for each module.

    Each holds `config.json` and `model.safetensors` as they were written, and `recorded.npz` with inputs and the output
    of then.

    Returns:
        The folder, which may lie within an archive.

    Examples:
        >>> sorted(version.name for version in earlier_folders().iterdir())[:1]
        ['0.1']
    """
    return files("plstm_golden") / "folders"
