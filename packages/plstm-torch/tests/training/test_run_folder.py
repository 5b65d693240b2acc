import json
import signal
import subprocess
import sys

import pytest
import torch

from plstm_torch.optional import FailedRunError, UserError
from plstm_torch.settings import RunSettings, TrainingSettings
from plstm_torch.training import RunFolder


def test_a_new_run_stores_its_settings(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "first")
    settings = RunSettings(task="digits", training=TrainingSettings(epochs=2))
    folder.create(settings, overwrite=False)
    assert folder.read_settings() == settings
    assert folder.load_checkpoint() is None


def test_an_existing_run_is_kept_unless_told_otherwise(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create(RunSettings(task="digits"), overwrite=False)
    folder.save_checkpoint({"model": {"weight": torch.ones(2)}})
    (folder.path / "notes.txt").write_text("mine")
    (folder.path / ".unfinished-curves.png").write_text("half a picture")
    with pytest.raises(UserError, match="run is not empty; continue with --resume, start anew with --overwrite"):
        folder.create(RunSettings(task="text"), overwrite=False)
    assert folder.read_settings().task == "digits"
    folder.create(RunSettings(task="text"), overwrite=True)
    assert folder.read_settings().task == "text"
    assert sorted(path.name for path in folder.path.iterdir()) == ["notes.txt", "training.json"]


def test_a_folder_with_something_else_is_never_emptied(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds something else than a run \(no training.json\); it is left untouched"):
        RunFolder(tmp_path).create(RunSettings(task="digits"), overwrite=True)
    with pytest.raises(UserError, match=r"thesis.tex is a file; --out expects a folder"):
        RunFolder(tmp_path / "thesis.tex").create(RunSettings(task="digits"), overwrite=True)
    with pytest.raises(UserError, match=r"cannot write to .*run: Not a directory"):
        RunFolder(tmp_path / "thesis.tex" / "run").create(RunSettings(task="digits"), overwrite=False)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_failing_write_leaves_the_old_file(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_metrics([{"epoch": 1}])

    def half(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(FailedRunError, match=r"cannot write .*metrics.jsonl: disk full; the files"):
        folder.save_picture("metrics.jsonl", half)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_damaged_files_are_named(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match=r"run holds no run \(no training.json\)"):
        folder.read_settings()
    folder.create(RunSettings(task="digits"), overwrite=False)
    folder.save_checkpoint({"model": {"weight": torch.ones(1000)}})
    content = (folder.path / "checkpoint.pt").read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"no checkpoint"):
        (folder.path / "checkpoint.pt").write_bytes(damaged)
        with pytest.raises(UserError, match=r"cannot read .*checkpoint.pt: it is truncated or no checkpoint"):
            folder.load_checkpoint()
    (folder.path / "training.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*training.json: "):
        folder.read_settings()


def test_a_checkpoint_holds_data_only(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("code ran",))

    folder = RunFolder(tmp_path)
    folder.save_checkpoint({"model": Evil()})
    with pytest.raises(UserError, match="no checkpoint of plstm-torch"):
        folder.load_checkpoint()


def test_one_run_at_a_time_writes_into_a_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        folder.create(RunSettings(task="digits"), overwrite=False)
        (folder.path / ".unfinished-1-curves.png").write_text("ours")
        with pytest.raises(UserError, match=r"run is in use by another run; wait for it or choose another --out"):
            RunFolder(tmp_path / "run").locked().__enter__()
        assert (folder.path / ".unfinished-1-curves.png").exists()
    with RunFolder(tmp_path / "run").locked():  # and takes away what a killed one left
        assert not (folder.path / ".unfinished-1-curves.png").exists()


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from plstm_torch.settings import RunSettings
from plstm_torch.training import RunFolder
folder = RunFolder(Path({str(tmp_path / "run")!r}))
with folder.locked():
    folder.create(RunSettings(task="digits"), overwrite=False)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    with RunFolder(tmp_path / "run").locked():
        assert (tmp_path / "run" / "training.json").exists()


def test_a_folder_that_stays_empty_is_removed_with_its_parents(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path / "some" / "where" / "run").locked():
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_metrics_are_always_json(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_metrics() is None
    with pytest.raises(ValueError, match="JSON"):
        folder.write_metrics([{"test_loss": float("nan")}])
    for damaged in ("[]", "{", '{"a": null}', '{"a": NaN}', "[" * 100_000):
        (tmp_path / "metrics.jsonl").write_text(damaged)
        with pytest.raises(UserError, match=r"cannot read .*metrics.jsonl: "):
            folder.read_metrics()
