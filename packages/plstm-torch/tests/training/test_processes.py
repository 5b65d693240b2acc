"""Runs in processes of their own: killed without warning, and several at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from plstm_testing.tolerances import rms_error, tolerance

MODEL = ["--dim", "8", "--heads", "2", "--blocks", "2", "--patch-size", "4", "--device", "cpu", "--threads", "1"]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def train(out: Path, *options: str, launcher: tuple[str, ...] = ()) -> None:
    words = ["-m", "plstm_torch", "train", "digits", *MODEL, *options, "--out", str(out)]
    done = subprocess.run(
        [sys.executable, *launcher, *words], env=environment(), capture_output=True, text=True, check=False
    )
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


def test_two_processes_follow_the_loss_curve_of_one(tmp_path):
    # the last batch of an epoch holds a single image, so one process has none of it
    # at a low learning rate, since training magnifies rounding step by step
    options = [
        "--batch-size",
        "131",
        "--steps",
        "13",
        "--validation",
        "0.1",
        "--dtype",
        "float64",
        "--learning-rate",
        "1e-4",
    ]
    alone, pair = tmp_path / "alone", tmp_path / "pair"
    train(alone, *options)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    train(pair, *options, launcher=launcher)
    for name in ("train_loss", "test_loss"):
        error = rms_error(curve(pair, name), curve(alone, name))
        assert error < tolerance("float64"), name
    assert np.array_equal(curve(pair, "test_accuracy"), curve(alone, "test_accuracy"))
    expected, actual = (np.concatenate([w.ravel() for w in weights(folder).values()]) for folder in (alone, pair))
    assert rms_error(actual, expected) < tolerance("float64")
