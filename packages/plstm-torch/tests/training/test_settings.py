import json

import pytest

from plstm_torch.training.settings import MachineSettings, RunSettings, TrainingSettings, from_mapping


def test_settings_survive_json():
    settings = RunSettings(
        task="arrows",
        data={"image_size": 48},
        training=TrainingSettings(epochs=3, steps=7, dtype="float64"),
        machine=MachineSettings(device="cpu", threads=2),
    )
    assert RunSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0: expected at least 1"),
        ({"steps": 0}, "steps=0: expected at least 1"),
        ({"batch_size": -1}, "batch_size=-1: expected at least 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: expected a positive number"),
        ({"final_learning_rate": 2.0}, "final_learning_rate=2.0: expected a number from 0 to 1"),
        ({"warmup_epochs": -1.0}, "warmup_epochs=-1.0: expected 0 or more"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1: expected 0 or more"),
        ({"beta2": 1.0}, "beta2=1.0: expected a number from 0 to below 1"),
        ({"dtype": "int8"}, "dtype='int8': expected one of float32, bfloat16, float16, float64"),
    ],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads=0: expected at least 1"),
        ({"workers": -1}, "workers=-1: expected 0 or more"),
        ({"checkpoint_every": 0}, "checkpoint_every=0: expected at least 1"),
    ],
)
def test_machine_values_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MachineSettings(**options)


def test_unknown_fields_and_versions_are_refused():
    with pytest.raises(ValueError, match="unknown setting epoch; TrainingSettings has epochs, steps"):
        from_mapping(TrainingSettings, {"epoch": 3})
    with pytest.raises(ValueError, match="schema_version=9: expected 1"):
        RunSettings.from_dict({"schema_version": 9})
    with pytest.raises(ValueError, match="missing data, machine"):
        RunSettings.from_dict({"schema_version": 1, "task": "digits", "training": {}})
