import json

import pytest
import torch

from plstm_torch.optional import UserError
from plstm_torch.training import RunFolder, RunSettings
from plstm_torch.training.settings import TrainingSettings


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

    with pytest.raises(OSError, match="disk full"):
        folder.save_picture("metrics.jsonl", half)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"epoch": 1}


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
