"""The epoch is chosen on validation, test is looked at once, and finished runs go on."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plstm_torch.settings import RunSettings, TrainingSettings
from plstm_torch.training.choice import best_epoch, choose_by
from plstm_torch.training.held_out import hold_out
from plstm_torch.training.schedule import Schedule

pytestmark = pytest.mark.usefixtures("no_drawing")


def lines(*measures):
    return [{"epoch": n, "val_accuracy": a, "val_loss": b} for n, (a, b) in enumerate(measures, start=1)]


def test_the_best_measure_wins_then_the_lowest_loss_then_the_first(bench):
    task = bench.Task()
    epochs = lines((0.5, 0.1), (0.8, 0.9), (0.8, 0.7), (0.8, 0.7), (0.7, 0.0))
    assert best_epoch(epochs, task)["epoch"] == 3
    task.more_is_better = False
    assert best_epoch(epochs, task)["epoch"] == 1
    assert choose_by(epochs[0], task) == "val_accuracy"
    assert best_epoch([{"epoch": 1}, {"epoch": 2}], task)["epoch"] == 2
    assert choose_by({"epoch": 1}, task) == "last epoch"


class Fading:
    """Makes a stand-in task whose validation is best in a given epoch."""

    def __init__(self, bench, best):
        self.task = bench.Task()
        self.task.evaluate, self.best, self.states = self.evaluate, best, []

    def evaluate(self, model, world, split):
        self.task.looks[split] += 1
        if split == "validation":
            self.states.append({name: value.clone() for name, value in model.state_dict().items()})
            return {"val_loss": 1.0, "val_accuracy": 1.0 if len(self.states) == self.best else 0.5}
        self.tested = {name: value.clone() for name, value in model.state_dict().items()}
        return {"test_loss": 1.0, "test_accuracy": 0.25}


@pytest.mark.parametrize("best", [1, 2, 3])
def test_the_weights_of_the_chosen_epoch_are_saved_and_tested_once(bench, best):
    fading = Fading(bench, best)
    trainer = bench.train("run", fading.task)
    assert fading.task.looks == {"validation": 3, "test": 1}
    *epochs, summary = bench.metrics("run")
    assert not any(name.startswith("test") for line in epochs for name in line)
    assert {"chosen_epoch": best, "chosen_by": "val_accuracy", "test_accuracy": 0.25}.items() <= summary.items()
    assert summary["train_loss"] == epochs[best - 1]["train_loss"]
    with (bench.path / "run" / "model.safetensors").open("rb") as file:
        saved = torch.load(file, weights_only=True)
    for name, value in fading.states[best - 1].items():
        assert torch.equal(saved[name], value)
        assert torch.equal(fading.tested[name], value)
        assert torch.equal(trainer.chosen.state_dict()[name], value)


def test_an_interrupted_run_remembers_the_chosen_weights(bench):
    class Choosy(bench.Task):
        def evaluate(self, model, world, split):
            measured = super().evaluate(model, world, split)
            if split == "validation":  # worse with every epoch
                measured["val_accuracy"] = 1 / (1 + sum(p.abs().sum().item() for p in model.parameters()))
            return measured

    whole = bench.train("whole", Choosy())
    with pytest.raises(bench.Interrupted):
        bench.train("cut", Choosy(die_at=14))
    resumed = bench.train("cut", Choosy())
    assert whole.summary["chosen_epoch"] < 3
    for name, value in whole.chosen.state_dict().items():
        assert torch.equal(resumed.chosen.state_dict()[name], value)
    assert resumed.summary["test_loss"] == whole.summary["test_loss"]


def test_a_run_without_validation_keeps_its_last_epoch(bench):
    class Unwatched(bench.Task):
        def evaluate(self, model, world, split):
            return {} if split == "validation" else super().evaluate(model, world, split)

    trainer = bench.train("run", Unwatched())
    assert {"chosen_epoch": 3, "chosen_by": "last epoch"}.items() <= trainer.summary.items()
    assert all(
        torch.equal(value, trainer.model.state_dict()[name]) for name, value in trainer.chosen.state_dict().items()
    )


def test_an_extension_goes_on_with_weights_and_order_and_warms_up_again(bench):
    settings = TrainingSettings(**{**vars(bench.settings), "extensions": (12,)})
    bench.train("run", bench.Task())
    with pytest.raises(bench.Interrupted):
        bench.train("run", bench.Task(die_at=5), settings=settings)
    cut = bench.train("run", bench.Task(), settings=settings)
    whole = bench.train("whole", bench.Task(), settings=settings)
    assert all(torch.equal(a, b) for a, b in zip(cut.model.parameters(), whole.model.parameters(), strict=True))
    assert [line["epoch"] for line in bench.metrics("run")[:-1]] == [1, 2, 3, 4, 5]
    rates = [cut.schedule.learning_rate(step) for step in range(30)]
    assert rates[18:] == pytest.approx(
        [
            Schedule(TrainingSettings(**{**vars(bench.settings), "epochs": 2}), 6).learning_rate(step)
            for step in range(12)
        ]
    )


@given(st.integers(1, 7), st.integers(1, 30), st.lists(st.integers(1, 20), max_size=3))
def test_epochs_end_where_the_schedule_says(length, steps, extensions):
    schedule = Schedule(TrainingSettings(steps=steps, extensions=tuple(extensions)), length)
    step, ends = 0, []
    while step < schedule.total_steps:
        assert schedule.learning_rate(step) > 0
        step = schedule.end_of_epoch(step)
        ends.append(step)
        assert schedule.epochs_after(step) == len(ends)
        assert schedule.epochs_after(step - 1) == len(ends) - 1 or step - 1 in ends
    total = steps + sum(extensions)
    assert ends[-1] == total
    assert set(range(length, total + 1, length)) | set(schedule.ends) == set(ends)


def test_settings_of_the_first_version_train_on_everything():
    old = {"schema_version": 1, "task": "text", "data": {"file": "x"}, "training": {}, "machine": {}}
    assert RunSettings.from_dict(old).data == {"files": ["x"], "validation": 0.0}
    arrows = RunSettings.from_dict({**old, "task": "arrows", "data": {"image_size": 48}})
    assert arrows.data == {"image_size": 48, "validation_images": 0}
    assert json.loads(json.dumps(arrows.to_dict()))["schema_version"] == 2


def test_every_class_stays_on_both_sides():
    labels = torch.arange(40).numpy() % 4
    labels[0] = 9  # a class of one
    kept, held = hold_out(labels, 0.1, key=1)
    assert sorted([*kept, *held]) == list(range(40))
    assert sorted(set(labels[held])) == [0, 1, 2, 3]
    assert set(labels[kept]) == {0, 1, 2, 3, 9}
    assert hold_out(labels, 0.0)[1].size == 0
    other = hold_out(labels, 0.1, key=2)[1]
    assert held.tolist() == hold_out(labels, 0.1, key=1)[1].tolist() != other.tolist()
