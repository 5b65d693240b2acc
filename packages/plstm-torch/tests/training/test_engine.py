"""What Lightning Fabric does for the trainer: precision, compilation, accumulated gradients, refusals."""

import os

import lightning_fabric
import pytest
import torch

from plstm_testing.tolerances import rms_error, tolerance
from plstm_torch.optional import UserError
from plstm_torch.settings import MachineSettings, TrainingSettings
from plstm_torch.training.distributed import open_world

pytestmark = pytest.mark.usefixtures("no_drawing")


@pytest.mark.parametrize("pieces", [2, 3, 50])
def test_accumulated_gradients_are_those_of_the_whole_batch(bench, pieces):
    settings = TrainingSettings(epochs=3, batch_size=10, learning_rate=0.01)
    whole, cut = (
        bench.train(f"run {number}", bench.Task(dropout=0.0), settings=settings, accumulate=number)
        for number in (1, pieces)
    )
    limit = tolerance("float32")
    assert rms_error(bench.weights(cut).numpy(), bench.weights(whole).numpy()) < limit
    assert cut.progress.step_losses == pytest.approx(whole.progress.step_losses, rel=limit)
    assert cut.task.scored > whole.task.scored


def test_accumulating_runs_are_interrupted_and_continued(bench):
    whole = bench.train("whole", bench.Task(), accumulate=2)
    with pytest.raises(bench.Interrupted):
        bench.train("cut", bench.Task(die_at=19), accumulate=2)
    assert torch.equal(bench.weights(whole), bench.weights(bench.train("cut", bench.Task(), accumulate=2)))


def test_bf16_narrows_linear_maps_and_keeps_parameters(bench):
    task, seen = bench.Task(dropout=0.0), []
    settings = TrainingSettings(**{**vars(bench.settings), "precision": "bf16"})
    trainer = bench.trainer("narrow", task, settings=settings)
    # while an epoch is measured there is no autocast
    trainer.model[0].register_forward_hook(lambda module, _, output: seen.append((module.training, output.dtype)))
    trainer.run(bench.Report())
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    wide = bench.train("wide", bench.Task(dropout=0.0))
    assert not torch.equal(bench.weights(trainer), bench.weights(wide))
    assert rms_error(bench.weights(trainer).numpy(), bench.weights(wide).numpy()) < tolerance("bfloat16")


def test_bf16_excludes_other_types_of_the_model():
    with pytest.raises(ValueError, match="precision: expected 32 with dtype='float64', got 'bf16'"):
        TrainingSettings(precision="bf16", dtype="float64")


def test_a_compiled_model_trains_as_others_do(bench, monkeypatch):
    compiled, compile_ = [], torch.compile

    def record(model, **options):
        compiled.append(model)
        return compile_(model, **{**options, "backend": "eager"})

    monkeypatch.setattr(torch, "compile", record)
    run = bench.train("compiled", bench.Task(dropout=0.0), compile=True)
    assert compiled[0] is run.model
    plain = bench.train("plain", bench.Task(dropout=0.0))
    assert rms_error(bench.weights(run).numpy(), bench.weights(plain).numpy()) < tolerance("float32")
    assert bench.folder("compiled").load_checkpoint()["model"].keys() == plain.model.state_dict().keys()


def test_the_engine_reads_and_writes_no_files(bench, monkeypatch):
    """Its loaders unpickle unless they are told otherwise; checkpoints are read by `RunFolder` alone."""
    for name in ("save", "load", "load_raw"):
        monkeypatch.setattr(lightning_fabric.Fabric, name, None)
    with pytest.raises(bench.Interrupted):
        bench.train("run", bench.Task(die_at=9))
    assert bench.train("run", bench.Task()).task.finished


def test_one_process_cannot_be_sharded():
    with (
        pytest.raises(UserError, match="strategy: expected ddp in a single process, got fsdp; start several"),
        open_world(MachineSettings(device="cpu", strategy="fsdp")),
    ):
        pass


def test_a_world_of_one_needs_no_group(monkeypatch):
    # as srun sets them for each of eight processes
    for name, value in {"NTASKS": "8", "NTASKS_PER_NODE": "8", "NODEID": "0", "PROCID": "3", "LOCALID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with open_world(MachineSettings(device="cpu")) as world:
        assert (world.share.rank, world.share.size, world.is_main) == (0, 1, True)
        assert world.sum({"a": 1.5, "b": 2.0}) == {"a": 1.5, "b": 2.0}
        world.barrier()
        assert not torch.distributed.is_initialized()
    assert "RANK" not in os.environ
