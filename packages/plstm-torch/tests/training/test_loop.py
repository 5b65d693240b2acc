import math

import pytest
import torch

from plstm_torch.optional import UserError
from plstm_torch.settings import TrainingSettings
from plstm_torch.training.loop import TrainingDivergedError
from plstm_torch.training.progress import Progress
from plstm_torch.training.report import Report

pytestmark = pytest.mark.usefixtures("no_drawing")


def without_time(lines):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_a_run_learns_and_writes_a_line_per_epoch(bench):
    settings = TrainingSettings(epochs=40, batch_size=8, learning_rate=0.02)
    trainer = bench.train("run", bench.Task(dropout=0.0), settings=settings)
    lines = bench.metrics("run")
    assert [line["epoch"] for line in lines[:-1]] == list(range(1, 41))
    assert lines[-1] == trainer.summary
    assert lines[-1]["summary"] is True
    assert lines[-1]["test_accuracy"] > 0.9
    assert lines[-1]["parameters"] == 6 * 16 + 16 + 16 * 3 + 3
    assert lines[0]["train_loss"] > 2 * lines[-2]["train_loss"]
    assert {path.name for path in (bench.path / "run").iterdir()} == {
        "training.json",
        "checkpoint.pt",
        "metrics.jsonl",
        "model.safetensors",
        "curves.png",
    }
    assert trainer.task.finished


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(bench):
    first, again = (bench.train(name, bench.Task()) for name in ("a", "b"))
    assert torch.equal(bench.weights(first), bench.weights(again))
    other = bench.train("c", bench.Task(), settings=TrainingSettings(**{**vars(bench.settings), "seed": 4}))
    assert not torch.equal(bench.weights(first), bench.weights(other))


@pytest.mark.parametrize("die_at", [0, 1, 3, 4, 5, 6, 11, 12, 17])
def test_an_interrupted_run_ends_with_the_same_weights(bench, die_at):
    whole = bench.train("whole", bench.Task())
    with pytest.raises(bench.Interrupted):
        bench.train("cut", bench.Task(die_at=die_at))
    resumed = bench.train("cut", bench.Task())
    assert torch.equal(bench.weights(whole), bench.weights(resumed))
    assert without_time(bench.metrics("whole")) == without_time(bench.metrics("cut"))
    assert whole.progress.step_losses == resumed.progress.step_losses


def test_a_run_may_be_interrupted_again_and_again(bench):
    whole = bench.train("whole", bench.Task())
    for _ in range(30):
        try:
            resumed = bench.train("cut", bench.Task(die_at=3), checkpoint_every=2)
            break
        except bench.Interrupted:
            continue
    assert torch.equal(bench.weights(whole), bench.weights(resumed))


def test_a_resumed_run_does_not_repeat_steps_before_its_checkpoint(bench):
    with pytest.raises(bench.Interrupted):
        bench.train("cut", bench.Task(die_at=11))
    task = bench.Task()
    bench.train("cut", task)
    # checkpoints are after steps 4, 6 (end of the epoch), 8; the run has 18 steps
    assert task.scored == 18 - 8


def test_resuming_a_finished_run_restores_what_is_missing_and_trains_no_more(bench):
    whole = bench.train("run", bench.Task())
    (bench.path / "run" / "metrics.jsonl").unlink()
    task = bench.Task()
    again = bench.train("run", task)
    assert task.scored == 0
    assert task.finished
    assert without_time([whole.summary]) == without_time(bench.metrics("run")[-1:])
    assert torch.equal(bench.weights(whole), bench.weights(again))


def test_workers_change_nothing(bench):
    alone = bench.train("alone", bench.Task())
    helped = bench.train("helped", bench.Task(), workers=2)
    assert torch.equal(bench.weights(alone), bench.weights(helped))


def test_steps_end_the_run_in_the_middle_of_an_epoch(bench):
    settings = TrainingSettings(**{**vars(bench.settings), "steps": 8})
    trainer = bench.train("run", bench.Task(), settings=settings)
    lines = bench.metrics("run")
    assert trainer.progress.step == 8
    assert len(trainer.progress.step_losses) == 8
    assert [line["step"] for line in lines] == [6, 8, 8]


def test_the_epoch_loss_is_the_mean_over_samples_not_over_batches(bench):
    settings = TrainingSettings(epochs=1, batch_size=4, learning_rate=1e-12, warmup_epochs=0)
    trainer = bench.train("run", bench.Task(dropout=0.0), settings=settings)
    line = bench.metrics("run")[0]
    assert line["train_loss"] == pytest.approx(line["val_loss"], rel=1e-6)
    assert line["train_accuracy"] == line["val_accuracy"]
    assert trainer.progress.epoch_count == 0


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(bench):
    task = bench.Task()
    task.inputs[7] = math.nan
    with pytest.raises(TrainingDivergedError, match=r"the loss became nan at step \d; try a lower --learning-rate"):
        bench.train("run", task, checkpoint_every=1)
    checkpoint = bench.folder("run").load_checkpoint()
    assert checkpoint is None or all(torch.isfinite(value).all() for value in checkpoint["model"].values())


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(bench, clip):
    task = bench.Task()

    def spoil(grad):
        return grad * math.inf if task.scored == 7 else grad

    settings = TrainingSettings(**{**vars(bench.settings), "gradient_clip": clip})
    trainer = bench.trainer("run", task, settings=settings, checkpoint_every=1)
    trainer.model[0].weight.register_hook(spoil)
    with pytest.raises(TrainingDivergedError, match=r"the gradient became (nan|inf) at step 7; try a lower"):
        trainer.run(Report())
    assert bench.folder("run").load_checkpoint()["progress"]["step"] == 6
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_an_update_that_is_not_finite_is_not_written(bench):
    settings = TrainingSettings(
        **{**vars(bench.settings), "learning_rate": 1e30, "weight_decay": 1e6, "warmup_epochs": 0}
    )
    with pytest.raises(TrainingDivergedError):
        bench.train("run", bench.Task(), settings=settings, checkpoint_every=1)
    folder = bench.folder("run")
    checkpoint = folder.load_checkpoint()
    assert checkpoint is None or all(torch.isfinite(value).all() for value in checkpoint["model"].values())
    assert folder.read_metrics() is None
    assert not (folder.path / "model.safetensors").exists()


@pytest.mark.parametrize("measured", [math.nan, math.inf])
def test_a_measure_that_is_not_finite_is_not_written(bench, measured):
    task = bench.Task()
    task.measured = measured
    with pytest.raises(TrainingDivergedError, match=r"val_loss became (nan|inf) at step 6; try"):
        bench.train("run", task)
    assert bench.folder("run").load_checkpoint()["progress"]["step"] == 4
    assert sorted(path.name for path in bench.folder("run").path.iterdir()) == ["checkpoint.pt", "training.json"]


def test_the_curve_of_the_loss_stays_short(monkeypatch):
    monkeypatch.setattr("plstm_torch.training.progress._MOST_LOSSES", 8)
    progress = Progress()
    for step in range(1, 1001):
        progress.add_step(float(step))
        assert len(progress.step_losses) < 8
        every = progress.steps_per_loss
        assert len(progress.step_losses) == step // every
    expected = [sum(range(i * every + 1, (i + 1) * every + 1)) / every for i in range(len(progress.step_losses))]
    assert progress.step_losses == pytest.approx(expected)
    long = {"step": 21, "step_losses": [float(i) for i in range(1, 22)]}  # as earlier versions wrote it
    restored = Progress.restore(long, ())
    assert (restored.steps_per_loss, restored.step_losses) == (4, [2.5, 6.5, 10.5, 14.5, 18.5])
    for step in range(22, 1001):
        restored.add_step(float(step))
    assert restored.step_losses == pytest.approx(progress.step_losses)


def test_a_checkpoint_of_another_model_is_refused(bench):
    bench.train("run", bench.Task())
    folder = bench.folder("run")
    checkpoint = folder.load_checkpoint()
    checkpoint["model"]["0.weight"] = checkpoint["model"]["0.weight"][:, :2]
    folder.save_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"run/checkpoint.pt: model does not fit the settings of the run: .*0.weight"):
        bench.trainer("run", bench.Task())


def test_a_checkpoint_of_an_earlier_version_is_continued(bench):
    whole = bench.train("whole", bench.Task())
    with pytest.raises(bench.Interrupted):
        bench.train("cut", bench.Task(die_at=9))
    checkpoint = bench.folder("cut").load_checkpoint()
    del checkpoint["progress"]["steps_per_loss"], checkpoint["progress"]["open_loss"], checkpoint["chosen"]
    for line in checkpoint["progress"]["epochs"]:  # without validation, as they were measured then
        del line["val_accuracy"], line["val_loss"]
    bench.folder("cut").save_checkpoint(checkpoint)
    assert torch.equal(bench.weights(whole), bench.weights(bench.train("cut", bench.Task())))


def test_a_finished_run_of_an_earlier_version_keeps_its_last_weights(bench):
    whole = bench.train("run", bench.Task())
    checkpoint = bench.folder("run").load_checkpoint()
    del checkpoint["chosen"]
    for line in checkpoint["progress"]["epochs"]:
        del line["val_accuracy"], line["val_loss"]
    bench.folder("run").save_checkpoint(checkpoint)
    again = bench.train("run", bench.Task())
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.chosen.state_dict()[name], value)
    assert again.summary["chosen_by"] == "last epoch"
