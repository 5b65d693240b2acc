"""Whatever a run folder holds, reading it is right or one line that names the file."""

import copy
import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plstm_torch.optional import UserError
from plstm_torch.settings import RunSettings
from plstm_torch.training import RunFolder, open_task

pytestmark = pytest.mark.usefixtures("no_drawing")
HUNDREDS = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([-5, 10**400, math.nan, math.inf, "", "cpu", []])
)
JSON = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
TENSORS = st.builds(lambda n, v: torch.full((n,), v), st.integers(0, 3), st.floats(width=32))
TENSORS |= st.just(torch.ones(16, 6))


def refusal(read):
    """What is said where reading is refused, empty where it is not."""
    try:
        read()
    except UserError as error:
        return str(error)
    return ""


def places(tree, path=()):
    """Every place of a tree of dictionaries and lists, the root included."""
    yield path
    if isinstance(tree, dict):
        for name in tree:
            yield from places(tree[name], (*path, name))
    elif isinstance(tree, list):
        for number in range(len(tree)):
            yield from places(tree[number], (*path, number))


def damage(tree, draw, values):
    """A copy with one place replaced, removed or added to."""
    tree = copy.deepcopy(tree)
    path = draw(st.sampled_from(list(places(tree))))
    if not path:
        return draw(values)
    *above, last = path
    parent = tree
    for name in above:
        parent = parent[name]
    action = draw(st.sampled_from(["replace", "remove", "add"]))
    if action == "remove":
        del parent[last]
    elif action == "add" and isinstance(parent, dict):
        parent[draw(st.text(max_size=3))] = draw(values)
    else:
        parent[last] = draw(values)
    return tree


@HUNDREDS
@given(st.data())
def test_damaged_settings_are_one_line(tmp_path, data):
    whole = RunSettings(task="digits", data={"dim": 8, "num_heads": 2, "patch_size": 4}).to_dict()
    folder = RunFolder(tmp_path)
    (tmp_path / "training.json").write_text(json.dumps(damage(whole, data.draw, JSON)))

    def read():
        stored = folder.read_settings()
        open_task(stored.task, stored.data, stored.training.seed)

    said = refusal(read)
    assert "\n" not in said
    assert len(said) < 2000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "training.json: "),
        (b"\xff", "training.json: "),
        (b"[" * 100_000, "training.json: it is nested too deeply"),
        (b"[]", "training.json: settings: expected a JSON object, got list"),
        (b"null", "training.json: settings: expected a JSON object, got NoneType"),
        (b'{"schema_version": true}', "training.json: schema_version: expected 1 to 2, got True"),
        (
            b'{"schema_version": 1, "task": 3, "data": {}, "training": {}, "machine": {}}',
            "task: expected a text, got 3",
        ),
        (
            b'{"schema_version": 1, "task": "text", "data": [], "training": {}, "machine": {}}',
            "data: expected a JSON object",
        ),
        (
            b'{"schema_version": 1, "task": "text", "data": {}, "training": {"epochs": null}, "machine": {}}',
            "training.json: training.epochs: expected an integer, got None",
        ),
        (
            b'{"schema_version": 1, "task": "text", "data": {}, "training": [], "machine": {}}',
            "training.json: training.TrainingSettings: expected a JSON object",
        ),
    ],
)
def test_settings_name_file_and_field(tmp_path, content, message):
    (tmp_path / "training.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        RunFolder(tmp_path).read_settings()


@pytest.fixture
def interrupted(bench):
    """The folder of a run of 18 steps that was stopped after 9 of them."""
    with pytest.raises(bench.Interrupted):
        bench.train("first", bench.Task(die_at=9))
    return bench.folder("first")


@HUNDREDS
@given(data=st.data())
def test_damaged_checkpoints_are_one_line(bench, interrupted, data):
    whole = interrupted.load_checkpoint()
    damaged = damage(whole, data.draw, JSON | TENSORS)
    bench.folder("run").save_checkpoint(damaged if isinstance(damaged, dict) else {"model": damaged})
    trainers = []
    said = refusal(lambda: trainers.append(bench.trainer("run", bench.Task())))
    assert "checkpoint.pt" in said or trainers
    assert "\n" not in said
    for trainer in trainers:
        assert 0 <= trainer.progress.step <= trainer.schedule.total_steps
        assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values())


@HUNDREDS
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_bytes_are_one_line(bench, interrupted, place, byte, cut):
    content = bytearray((interrupted.path / "checkpoint.pt").read_bytes())
    position = int(place * len(content))
    content[position] = byte
    folder = bench.folder("run")
    (folder.path / "checkpoint.pt").write_bytes(bytes(content[:position] if cut else content))
    said = refusal(lambda: bench.trainer("run", bench.Task()))
    assert said == "" or "checkpoint.pt" in said


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("step", -5, "step: expected an integer of at least 0, got -5"),
        ("step", None, "step: expected an integer of at least 0, got None"),
        ("step", 10**6, "step_losses: expected one for every 1 of 1000000 steps, got 8"),
        ("epochs", [], "epochs: expected 1 after step 8, got 0"),
        ("epochs", [None], "epochs: expected a list of numbers"),
        ("epochs", [{}], "epochs: expected a list of numbers"),
        ("epoch_loss", math.nan, "epoch_loss: expected a finite number, got nan"),
        ("step_losses", ["x"] * 8, "step_losses: expected a list of finite numbers"),
        ("unknown", 1, "progress: expected a dictionary of"),
    ],
)
def test_progress_names_file_and_field(bench, interrupted, field, value, message):
    whole = interrupted.load_checkpoint()
    whole["progress"][field] = value
    bench.folder("run").save_checkpoint(whole)
    said = refusal(lambda: bench.trainer("run", bench.Task()))
    assert f"run/checkpoint.pt: progress does not fit the settings of the run: {message}" in said
