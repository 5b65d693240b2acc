"""Record weights folders of the present version, which later ones must read: run once for each version that is tagged.

    python packages/plstm-golden/tools/record_folders.py

The modules are those of version 0.1, so that what a version changed can be seen side by side; outputs are the
reference's. Folders that exist are not written again.
"""

import sys
from pathlib import Path

import numpy as np

from plstm_config.folder import read_folder, write_folder
from plstm_golden import earlier_folders
from plstm_golden.version import __version__
from plstm_testing import golden, reference
from plstm_testing.parameters import random_parameters


def record(earlier: golden.EarlierFolder, place: Path) -> None:
    """Write one module with new weights, and what it gives for the inputs of then."""
    config, _ = read_folder(earlier.path)
    random = np.random.default_rng(0)
    arrays = {name: array.astype(np.float32) for name, array in random_parameters(config, random).items()}
    write_folder(place, config, arrays, package="plstm-testing", version=__version__)
    exact = {name: array.astype(np.float64) for name, array in arrays.items()}
    output = reference.apply(config, exact, *earlier.inputs.values())
    with np.load(earlier.path / "recorded.npz") as recorded:
        inputs = {name: recorded[name] for name in recorded.files if name != "output"}
    np.savez_compressed(place / "recorded.npz", **inputs, output=np.asarray(output, np.float32))


def main() -> None:
    folder = Path(str(earlier_folders())) / ".".join(__version__.split(".")[:2])
    if folder.exists():
        sys.exit(f"{folder} exists; a folder that was recorded is never changed")
    first = [one for one in golden.earlier_folders() if one.name.startswith("0.1/")]
    for earlier in first:
        record(earlier, folder / earlier.name.partition("/")[2])


if __name__ == "__main__":
    main()
