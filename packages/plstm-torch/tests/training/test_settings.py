import json

import pytest

from plstm_torch.settings import MachineSettings, RunSettings, TrainingSettings, from_mapping


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
        ({"epochs": 0}, "epochs: expected at least 1 and at most 1048576, got 0"),
        ({"steps": 0}, "steps: expected at least 1 .*, got 0"),
        ({"batch_size": -1}, "batch_size: expected at least 1 .*, got -1"),
        ({"learning_rate": 0.0}, "learning_rate: expected above 0 and at most 1e\\+30, got 0.0"),
        ({"final_learning_rate": 2.0}, "final_learning_rate: expected at least 0 and at most 1, got 2.0"),
        ({"warmup_epochs": -1.0}, "warmup_epochs: expected at least 0 .*, got -1.0"),
        ({"weight_decay": -0.1}, "weight_decay: expected at least 0 .*, got -0.1"),
        ({"beta2": 1.0}, "beta2: expected at least 0 and below 1, got 1.0"),
        ({"seed": 2**70}, r"seed: expected at least 0 and at most 9223372036854775807, got 1180591620717411303424"),
        ({"epochs": 10**5000}, "epochs: expected .*, got an integer of many digits"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a finite number, got nan"),
        ({"epochs": True}, "epochs: expected an integer, got True"),
        ({"epochs": 3.0}, "epochs: expected an integer, got 3.0"),
        ({"steps": "3"}, "steps: expected an integer or null, got '3'"),
        ({"dtype": "int8"}, "dtype: expected one of 'float32', 'bfloat16', 'float16', 'float64', got 'int8'"),
    ],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        TrainingSettings(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 100_000}, "threads: expected at least 1 and at most 1024, got 100000"),
        ({"device": None}, "device: expected a text, got None"),
        ({"threads": 0}, "threads: expected at least 1 and at most 1024, got 0"),
        ({"workers": -1}, "workers: expected at least 0 and at most 256, got -1"),
        ({"checkpoint_every": 0}, "checkpoint_every: expected at least 1 .*, got 0"),
    ],
)
def test_machine_values_out_of_range_are_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        MachineSettings(**options)


def test_unknown_fields_and_versions_are_refused():
    with pytest.raises(ValueError, match=r"TrainingSettings: expected the settings epochs, steps, .*, got 'epoch'"):
        from_mapping(TrainingSettings, {"epoch": 3})
    with pytest.raises(ValueError, match="schema_version: expected 1 to 2, got 9"):
        RunSettings.from_dict({"schema_version": 9})
    with pytest.raises(ValueError, match="settings: expected the entries data, machine, got none"):
        RunSettings.from_dict({"schema_version": 1, "task": "digits", "training": {}})
