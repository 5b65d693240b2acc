"""Fetch a data set of the TUDataset collection: an archive whose text files are taken and whose rest is ignored."""

import os
import shutil
import zipfile
from io import BytesIO
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from plstm_testing.datasets.errors import DatasetError

SITE = "https://www.chrsmrrs.com/graphkerneldatasets"
_LARGEST_ARCHIVE, _LARGEST_FILE = 2**30, 2**32
_SECONDS = 30.0


def download_tu_dataset(name: str, folder: Path) -> None:
    """Fetch a data set; nothing is left behind on failure, not even an empty folder.

    Args:
        name: of the data set.
        folder: where its text files are put; it must not exist yet.

    Raises:
        DatasetError: if the site does not answer, the archive is damaged, or the folder cannot be written.
    """
    try:
        with urlopen(f"{SITE}/{name}.zip", timeout=_SECONDS) as answer:
            content = answer.read(_LARGEST_ARCHIVE + 1)
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        places = ", ".join(str(place / f"{name}_A.txt") for place in (folder, folder.parent, folder.parent.parent))
        raise DatasetError(
            f"{folder} does not hold {name}, and it cannot be downloaded: {reason}; data of your own are {places}"
        ) from error
    if len(content) > _LARGEST_ARCHIVE:
        raise DatasetError(f"{name}: expected an archive of at most {_LARGEST_ARCHIVE} bytes, got a larger one")
    made = _make(folder.parent)
    unfinished = folder.with_name(f"{folder.name}.unfinished-{os.getpid()}")
    try:
        unfinished.mkdir()
        _extract(name, content, unfinished)
        os.replace(unfinished, folder)
    # zipfile raises the last one for a compression that it does not know
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        for path in made:
            path.rmdir()
        raise DatasetError(f"cannot store {name} in {folder}: {error}") from error


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the new ones, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        for path in missing:
            if path.is_dir():
                path.rmdir()
        raise DatasetError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    return missing


def _extract(name: str, content: bytes, folder: Path) -> None:
    """Write the archive's text files under names of our own, so that none can lead out of the folder."""
    with zipfile.ZipFile(BytesIO(content)) as archive:
        found = 0
        for entry in archive.infolist():
            own = entry.filename.rsplit("/", 1)[-1]
            if not (own.startswith(f"{name}_") and own.endswith(".txt")) or "\\" in own:
                continue
            if entry.file_size > _LARGEST_FILE:
                raise ValueError(f"{own}: expected at most {_LARGEST_FILE} bytes, got {entry.file_size}")
            with archive.open(entry) as source, (folder / own).open("wb") as target:
                shutil.copyfileobj(source, target)
            found += 1
    if not found:
        raise ValueError(f"archive: expected text files {name}_*.txt, got none")
