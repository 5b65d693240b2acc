"""The run folder: what is in it, and how it stays whole when the process is killed."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from plstm_torch.optional import UserError
from plstm_torch.training.settings import RunSettings

SETTINGS_FILE = "training.json"
CHECKPOINT_FILE = "checkpoint.pt"
METRICS_FILE = "metrics.jsonl"
MODEL_FILES = ("config.json", "model.safetensors")
CURVES_FILE = "curves.png"
EXAMPLES_FILE = "examples.png"
CONFUSION_FILE = "confusion.png"
SAMPLE_FILE = "sample.txt"
_PICTURES = (CURVES_FILE, EXAMPLES_FILE, CONFUSION_FILE)
_RUN_FILES = (CHECKPOINT_FILE, METRICS_FILE, *MODEL_FILES, *_PICTURES, SAMPLE_FILE, SETTINGS_FILE)
_UNFINISHED = ".unfinished-"


class RunFolder:
    """A folder that holds one run.

    Every file is written beside its place and then renamed, so each is at any moment either the old or the new one.
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
        present = [p for p in self.path.iterdir() if not p.name.startswith(_UNFINISHED)] if self.path.exists() else []
        if present and not overwrite:
            raise UserError(f"{self.path} is not empty; continue with --resume, start anew with --overwrite")
        if present and not (self.path / SETTINGS_FILE).exists():
            raise UserError(f"{self.path} holds something else than a run (no {SETTINGS_FILE}); it is left untouched")

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
            self._write_text(SETTINGS_FILE, json.dumps(settings.to_dict(), indent=2) + "\n")
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror or error}") from error

    def read_settings(self) -> RunSettings:
        """Read the settings of the run in this folder.

        Returns:
            The settings.

        Raises:
            UserError: if there is no run or its settings cannot be read.
        """
        path = self.path / SETTINGS_FILE
        try:
            return RunSettings.from_dict(json.loads(path.read_text()))
        except FileNotFoundError as error:
            raise UserError(f"{self.path} holds no run (no {SETTINGS_FILE})") from error
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"cannot read {path}: {error}") from error

    def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Write weights, optimizer and progress as one file."""
        self._replace(CHECKPOINT_FILE, lambda path: torch.save(dict(checkpoint), path))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Read the newest checkpoint.

        Returns:
            What `save_checkpoint` wrote, on the CPU; None if the run was stopped before its first checkpoint.

        Raises:
            UserError: if the file cannot be read.
        """
        path = self.path / CHECKPOINT_FILE
        if not path.exists():
            return None
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise UserError(f"cannot read {path}: it is truncated or no checkpoint of plstm-torch") from error
        return dict(loaded)

    def write_metrics(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl, one line per mapping."""
        self._write_text(METRICS_FILE, "".join(json.dumps(dict(line)) + "\n" for line in lines))

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
        for leftover in self.path.glob(f"{_UNFINISHED}*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
        for name in _RUN_FILES:
            (self.path / name).unlink(missing_ok=True)

    def _write_text(self, name: str, text: str) -> None:
        self._replace(name, lambda path: path.write_text(text, encoding="utf-8"))

    def _replace(self, name: str, write: Callable[[Path], object]) -> None:
        unfinished = self.path / f"{_UNFINISHED}{name}"
        write(unfinished)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, self.path / name)
