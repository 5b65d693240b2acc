"""Runs in processes of their own: killed without warning, and several at a time."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from torch import nn

from plstm_testing.tolerances import rms_error, tolerance
from plstm_torch.cli import app
from plstm_torch.optional import UserError
from plstm_torch.training import RunFolder
from plstm_torch.training.sharding import shard

MODEL = ["--dim", "8", "--heads", "2", "--blocks", "2", "--patch-size", "4", "--device", "cpu", "--threads", "1"]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def train(out: Path, *options: str) -> None:
    words = [sys.executable, "-m", "plstm_torch", "train", "digits", *MODEL, *options, "--out", str(out)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def curve(folder: Path, name: str) -> np.ndarray:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return np.array([line[name] for line in lines[:-1]])


def test_a_killed_run_continues_and_ends_with_the_same_weights(tmp_path):
    options = ["--batch-size", "64", "--epochs", "2", "--drop-path", "0.2", "--checkpoint-every", "3"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(whole, *options)
    words = ["-m", "plstm_torch", "train", "digits", *MODEL, *options, "--out", str(cut)]
    process = subprocess.Popen([sys.executable, *words], env=environment(), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (cut / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (cut / "examples.png").exists()
    train(cut, *options, "--resume")
    expected, actual = weights(whole), weights(cut)
    assert expected.keys() == actual.keys()
    assert all(np.array_equal(expected[name], actual[name]) for name in expected)
    assert np.array_equal(curve(whole, "train_loss"), curve(cut, "train_loss"))


def in_two_processes(words: list[str]) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "plstm_torch"]
    command = [sys.executable, *launcher, *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def alone(*words: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        app(list(words))
    assert stopped.value.code == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run in one process and in two with copies of the parameters; the first extended alone and in shards."""
    folder = tmp_path_factory.mktemp("runs")
    # of 1,299 images the third batch holds a single one, so one process has none of it
    # at a low learning rate, since training magnifies rounding step by step
    words = ["train", "digits", *MODEL, "--batch-size", "649", "--steps", "4", "--learning-rate", "1e-4", "--out"]
    alone(*words, str(folder / "alone"))
    for name in ("extended alone", "extended sharded"):
        shutil.copytree(folder / "alone", folder / name)
    extend = ["train", "digits", "--extend", "1", "--device", "cpu", "--out"]
    alone(*extend, str(folder / "extended alone"))
    in_two_processes([*words, str(folder / "ddp"), "--accumulate", "2"])
    in_two_processes([*extend, str(folder / "extended sharded"), "--strategy", "fsdp", "--accumulate", "2"])
    return folder


@pytest.mark.parametrize(("first", "second"), [("alone", "ddp"), ("extended alone", "extended sharded")])
def test_two_processes_follow_the_loss_curve_of_one(runs, first, second):
    single, pair = runs / first, runs / second
    for name in ("train_loss", "val_loss"):
        error = rms_error(curve(pair, name), curve(single, name))
        assert error < tolerance("float32"), name
    assert np.array_equal(curve(pair, "val_accuracy"), curve(single, "val_accuracy"))
    expected, actual = (np.concatenate([w.ravel() for w in weights(folder).values()]) for folder in (single, pair))
    assert rms_error(actual, expected) < tolerance("float32")


def test_a_sharded_checkpoint_is_that_of_a_single_process(runs):
    single, sharded = (RunFolder(runs / name).load_checkpoint() for name in ("extended alone", "extended sharded"))
    for name in ("model", "chosen"):
        assert {k: v.shape for k, v in single[name].items()} == {k: v.shape for k, v in sharded[name].items()}
    assert single["optimizer"]["state"].keys() == sharded["optimizer"]["state"].keys()
    moments = [[means["exp_avg"] for means in each["optimizer"]["state"].values()] for each in (single, sharded)]
    expected, actual = (np.concatenate([mean.numpy().ravel() for mean in each]) for each in moments)
    assert rms_error(actual, expected) < tolerance("float32")


def test_several_types_of_parameters_are_not_sharded():
    with pytest.raises(UserError, match="strategy: expected parameters of one type for fsdp, got float32 and float64"):
        shard(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()), {})
