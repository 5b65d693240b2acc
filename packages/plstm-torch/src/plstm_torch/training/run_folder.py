"""The run folder: what is in it, and how it stays whole when the process is killed.

torch is imported where a checkpoint is read or written: a folder without a run is found out before that.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plstm_torch.optional import FailedRunError, UserError, require
from plstm_torch.settings import RunSettings
from plstm_torch.training.progress import is_number

SETTINGS_FILE = "training.json"
CHECKPOINT_FILE = "checkpoint.pt"
METRICS_FILE = "metrics.jsonl"
MODEL_FILES = ("config.json", "model.safetensors")
CURVES_FILE = "curves.png"
EXAMPLES_FILE = "examples.png"
CONFUSION_FILE = "confusion.png"
SAMPLE_FILE = "sample.txt"
TOKENIZER_FILE = "tokenizer.json"
PREDICTIONS_FILE = "predictions.csv"
_PICTURES = (CURVES_FILE, EXAMPLES_FILE, CONFUSION_FILE)
_RUN_FILES = (
    CHECKPOINT_FILE,
    METRICS_FILE,
    *MODEL_FILES,
    *_PICTURES,
    SAMPLE_FILE,
    TOKENIZER_FILE,
    PREDICTIONS_FILE,
    SETTINGS_FILE,
)
_UNFINISHED = ".unfinished-"
_LOCK_FILE = ".lock"


class RunFolder:
    """A folder that holds one run.

    Every file is written beside its place and then renamed, so each is at any moment either the old or the new one.
    Who writes holds the folder's lock (`locked`); the system gives it back when the process ends, however it ends.
    The checkpoint is one file with weights, optimizer and progress, metrics included: it cannot contradict itself, and
    everything else in the folder is written again from it.
    """

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is read or written."""
        self.path = path

    def check_new(self, *, overwrite: bool) -> None:
        """Check that a new run may start in this folder.

        Args:
            overwrite: whether an earlier run in it may be deleted.

        Raises:
            UserError: if the folder is not empty and may not be emptied, or holds something else than a run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; --out expects a folder")
        present = self._present()
        if present and not overwrite:
            raise UserError(f"{self.path} is not empty; continue with --resume, start anew with --overwrite")
        if present and not (self.path / SETTINGS_FILE).exists():
            raise UserError(f"{self.path} holds something else than a run (no {SETTINGS_FILE}); it is left untouched")

    def _present(self) -> list[Path]:
        """What is in the folder, apart from its lock and what killed runs left behind."""
        everything = list(self.path.iterdir()) if self.path.exists() else []
        return [path for path in everything if path.name != _LOCK_FILE and not path.name.startswith(_UNFINISHED)]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if need be, and keep other runs out of it; what a killed run left unfinished is removed.

        Yields:
            Nothing. A folder that is empty at the end is removed.

        Raises:
            UserError: if another run is writing there, or the folder cannot be written.
        """
        filelock = require("filelock", "filelock")
        missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
        lock = filelock.FileLock(self.path / _LOCK_FILE, blocking=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout as error:
            raise UserError(f"{self.path} is in use by another run; wait for it or choose another --out") from error
        except OSError as error:
            _remove_empty(missing)
            raise UserError(f"cannot write to {self.path}: {error.strerror or error}") from error
        try:
            self._clean()
            yield
        finally:
            if missing and not self._present():
                (self.path / _LOCK_FILE).unlink(missing_ok=True)
                _remove_empty(missing)
            lock.release()

    def create(self, settings: RunSettings, *, overwrite: bool) -> None:
        """Start a new run.

        Args:
            settings: of the run.
            overwrite: whether an earlier run in this folder may be deleted.

        Raises:
            UserError: see `check_new`; or if the folder cannot be written.
        """
        self.check_new(overwrite=overwrite)
        try:
            self.delete()
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_settings(settings)
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror or error}") from error

    def write_settings(self, settings: RunSettings) -> None:
        """Write the settings of the run in this folder."""
        self._write_text(SETTINGS_FILE, json.dumps(settings.to_dict(), indent=2) + "\n")

    def read_settings(self) -> RunSettings:
        """Read the settings of the run in this folder.

        Returns:
            The settings.

        Raises:
            UserError: if there is no run or its settings cannot be read.
        """
        path = self.path / SETTINGS_FILE
        try:
            return RunSettings.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise UserError(f"{self.path} holds no run (no {SETTINGS_FILE})") from error
        except RecursionError as error:
            raise UserError(f"cannot read {path}: it is nested too deeply") from error
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"cannot read {path}: {error}") from error

    @property
    def has_checkpoint(self) -> bool:
        """Whether a run can be continued here."""
        return (self.path / CHECKPOINT_FILE).exists()

    @property
    def has_model(self) -> bool:
        """Whether weights were written, which happens at the end of each epoch."""
        return all((self.path / name).exists() for name in MODEL_FILES)

    def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Write weights, those of the chosen epoch, optimizer and progress as one file."""
        import torch

        def save(path: Path) -> None:
            # a file of Python's own: torch's says nothing of why it could not write
            with path.open("wb") as file:
                torch.save(dict(checkpoint), file)

        self._replace(CHECKPOINT_FILE, save)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Read the newest checkpoint. Nothing but tensors and plain values is ever unpickled.

        Returns:
            What `save_checkpoint` wrote, on the CPU; None if the run was stopped before its first checkpoint.

        Raises:
            UserError: if the file cannot be read.
        """
        path = self.path / CHECKPOINT_FILE
        if not path.exists():
            return None
        import torch

        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch's reader raises whatever a damaged file happens to trip
            raise UserError(f"cannot read {path}: it is truncated or no checkpoint of plstm-torch") from error
        if not isinstance(loaded, dict):
            raise UserError(f"cannot read {path}: expected a dictionary, got {type(loaded).__name__}")
        return loaded

    def write_metrics(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl, one line per mapping.

        Raises:
            ValueError: if a number is infinite or NaN, which JSON cannot hold.
        """
        text = "".join(json.dumps(dict(line), allow_nan=False) + "\n" for line in lines)
        self._write_text(METRICS_FILE, text)

    def read_metrics(self) -> list[dict[str, Any]] | None:
        """Read metrics.jsonl.

        Returns:
            A mapping for each line; None if there is no such file.

        Raises:
            UserError: if a line is no JSON object, or holds something else than finite numbers, texts and booleans.
        """
        path = self.path / METRICS_FILE
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"cannot read {path}: expected one JSON object in each line ({error})") from error
        for number, line in enumerate(lines, start=1):
            if not isinstance(line, dict) or not all(_is_plain(value) for value in line.values()):
                raise UserError(f"cannot read {path}: line {number}: expected an object of finite numbers")
        return lines

    def save_picture(self, name: str, save: Callable[[Path], None]) -> None:
        """Let `save` write a picture, then put it in place under `name`."""
        self._replace(name, save)

    def save_text(self, name: str, text: str) -> None:
        """Write a text file."""
        self._write_text(name, text)

    def delete(self) -> None:
        """Delete what a run writes and nothing else; the settings last, so that the rest still counts as a run."""
        if not self.path.exists():
            return
        self._clean()
        for name in _RUN_FILES:
            (self.path / name).unlink(missing_ok=True)

    def _clean(self) -> None:
        """Remove what killed runs left unfinished."""
        for leftover in self.path.glob(f"{_UNFINISHED}*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()

    def _write_text(self, name: str, text: str) -> None:
        self._replace(name, lambda path: path.write_text(text, encoding="utf-8"))

    def _replace(self, name: str, write: Callable[[Path], object]) -> None:
        unfinished = self.path / f"{_UNFINISHED}{os.getpid()}-{name}"
        try:
            write(unfinished)
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, self.path / name)
        except (OSError, RuntimeError) as error:
            raise cannot_write(self.path / name, error) from error
        finally:
            unfinished.unlink(missing_ok=True)


def cannot_write(path: Path, error: Exception) -> FailedRunError:
    """Say why a file could not be written.

    Args:
        path: the file or folder.
        error: what was raised; torch hides the system's reason behind an error of its own.

    Returns:
        The error to raise.
    """
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__context__
    reason = (found.strerror if isinstance(found, OSError) else None) or error
    return FailedRunError(f"cannot write {path}: {reason}; the files that were there before are as they were")


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, up to the first that is not empty."""
    for path in folders:
        if not path.is_dir() or any(path.iterdir()):
            return
        path.rmdir()


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | str) or is_number(value)
