"""Whatever stands in a config or a weights folder, reading it ends in what it says or in a ValueError on one line."""

import copy
import dataclasses
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import plstm_config as pc
from plstm_config.folder import CONFIG_FILE, DIGEST, WEIGHTS_FILE, read_folder, write_folder
from plstm_config.original import migrate
from plstm_config.serialization import CONFIG_CLASSES
from plstm_config.weights import count_arrays

_NEEDED: dict[str, dict[str, Any]] = {
    "pLSTMLMModel": {"vocab_size": 11, "embedding_dim": 32},
    "pLSTMGraphModel": {"input_dim": 7, "output_dim": 2},
    "TokenEmbedding": {"vocab_size": 11, "embedding_dim": 32},
    "BlockStack": {"num_blocks": 2},
}


def _tree(class_name: str) -> dict[str, Any]:
    cls = CONFIG_CLASSES[class_name]
    width = {"input_dim": 64} if any(field.name == "input_dim" for field in dataclasses.fields(cls)) else {}
    return pc.to_dict(cls(**(width | _NEEDED.get(class_name, {}))))


TREES = [_tree(name) for name in sorted(CONFIG_CLASSES)] + [pc.to_dict(pc.preset("plstm_vis_tiny"))]
ORIGINALS = [
    *(json.loads((Path(__file__).parent / "data" / f"{name}.json").read_text()) for name in ("plstm_vis_t", "vit_t")),
    {"config_class": "pLSTM1DLayerConfig", "input_dim": 32, "num_heads": 2, "source": {"weight": True}},
    {"_shortname": "pLSTM2D", "input_dim": 8, "num_heads": 2, "source": {"config_class": "SourceLayerConfig"}},
]
ODD: Any = [
    *(None, True, False, 0, 1, -1, -5, 2, 3, 7, 10**6, 2**61, 2**62, 10**30, -(10**400), 0.0, 0.5, -1.5, 1e308, 1e-320),
    *(float("nan"), float("inf"), "", "x", "P", "PD", "\x1b[31m\n", "float32", "tanh", [], [1], [1, 2], [0, 0]),
    *([-1, 2], [1, 2, 3], ["a"], [[]], [None], {}, {"a": 1}, {"class_name": None}, {"class_name": [1]}),
    *({"class_name": "SourceLayer"}, {"class_name": "ZerosInit"}, {"class_name": "MarkLayer", "num_heads": 3}),
    *({"config_class": "SourceLayerConfig"}, {"config_class": [1]}, {"_shortname": {}}),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("class_name"), inner, max_size=4),
    max_leaves=12,
)
VALUES = st.sampled_from(ODD) | JSON
_FUZZING = settings.default is not None and settings.default.max_examples > 1000  # the profile "fuzz"
MANY = settings(
    max_examples=10_000 if _FUZZING else 300,
    derandomize=not _FUZZING,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
FEWER = settings(MANY, max_examples=MANY.max_examples // 2)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield from places(tree[key], (*path, key))


def put(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    tree = copy.copy(tree)
    tree[path[0]] = put(tree[path[0]], path[1:], value)
    return tree


@st.composite
def damaged_trees(draw: st.DrawFn, trees: Sequence[Any] = TREES) -> Any:
    tree = draw(st.sampled_from(trees))
    for _ in range(draw(st.integers(1, 3))):
        tree = put(tree, draw(st.sampled_from(list(places(tree)))), draw(VALUES))
    return tree


def read(tree: Any) -> None:
    """Read a config and all that follows from it."""
    try:
        config = pc.from_dict(tree)
        count_arrays(config), pc.count_parameters(config), repr(config)
    except (TypeError, ValueError) as error:
        assert_one_line(error)
    else:
        assert pc.from_dict(pc.to_dict(config)) == config


def assert_one_line(error: Exception, path: str = "") -> None:
    message = str(error)
    assert path in message
    assert message.isprintable(), message
    assert len(message) < 4000
    assert ": expected " in message


@MANY
@given(damaged_trees())
def test_configs_with_wrong_values_anywhere(tree: Any) -> None:
    read(tree)


@MANY
@given(JSON)
def test_any_value_of_json(value: Any) -> None:
    read(value)


@pytest.mark.filterwarnings("ignore::plstm_config.original.MigrationWarning")
@MANY
@given(damaged_trees(ORIGINALS))
def test_original_configs_with_wrong_values_anywhere(tree: Any) -> None:
    try:
        migrate(tree)
    except (TypeError, ValueError) as error:
        assert_one_line(error)


@pytest.mark.parametrize("place", ["", "block_stack", "block_stack.block.norm"])
def test_the_message_leads_to_the_field(place: str) -> None:
    tree = pc.to_dict(pc.TransformerBlockConfig(input_dim=8))
    stack: dict[str, Any] = {"class_name": "BlockStack", "num_blocks": 1, "input_dim": 8, "block": tree}
    whole = {"class_name": "pLSTMVisionModel", "dim": 8, "block_stack": stack, "resolution": [32, 32]}
    target: Any = whole
    for name in filter(None, place.split(".")):
        target = target[name]
    target["dtype"] = "float31"
    prefix = f"{place}: " if place else ""
    with pytest.raises(ValueError, match=rf"^{prefix}dtype: expected one of 'float32'"):
        pc.from_dict(whole)


def test_a_choice_must_be_made() -> None:
    with pytest.raises(ValueError, match=r"^bias_init\.class_name: expected one of ConstantInit, .*, got None"):
        pc.from_dict({"class_name": "SourceLayer", "bias_init": {"value": 1.0}})
    with pytest.raises(ValueError, match=r"^source\.class_name: expected one of SourceLayer, got 'MarkLayer'"):
        pc.from_dict({"class_name": "pLSTM1DLayer", "source": {"class_name": "MarkLayer"}})
    with pytest.raises(TypeError, match=r"^input_dim: expected no mapping, got one with the keys \['a'\]"):
        pc.from_dict({"class_name": "pLSTM1DLayer", "input_dim": {"a": 1}})
    layer: Any = pc.from_dict({"class_name": "pLSTM1DLayer", "input_dim": 8, "source": {"weight": True}})
    assert layer.source.weight


def test_nesting_and_number_are_bounded() -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"block": deep}
    with pytest.raises(ValueError, match="nests deeper than 64 levels"):
        pc.from_dict(deep)
    twice: Any = [1, 2]
    for _ in range(40):  # as aliases of YAML make it: small in memory, endless to walk through
        twice = [twice, twice]
    with pytest.raises(ValueError, match="more than 20000 values"):
        pc.from_dict({"class_name": twice})


TEXTS = {
    "deep.json": "[" * 100_000,
    "deep.yaml": "[" * 3_000,
    "number.json": "1" * 5_000,
    "constant.json": '{"class_name": "RMSNorm", "eps": NaN}',
    "constant.yaml": "{class_name: RMSNorm, eps: .nan}",
    "date.yaml": "2001-99-99",
    "keys.yaml": "{class_name: RMSNorm, 3: 4, [1]: 2}",
    "numbers.yaml": "{class_name: RMSNorm, 3: 4}",
    "bytes.json": b"\xff\xfe",
    "bytes.yaml": b"\xff\xfe\xfd",
    "type.json": '{"class_name": "RMSNorm", "eps": "small"}',
    "object.yaml": "!!python/object/apply:os.system ['true']",
    "bomb.yaml": "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 1}]\n" for i in range(12)),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_are_no_config(tmp_path: Path, name: str) -> None:
    text = TEXTS[name]
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"{name}: ") as caught:
        pc.load(tmp_path / name)
    assert_one_line(caught.value)


@FEWER
@given(damaged_trees(), st.sampled_from(["json", "yaml"]))
def test_files_with_wrong_values(tree: Any, kind: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"config.{kind}"
        path.write_text(json.dumps(tree) if kind == "json" else yaml.safe_dump(tree), encoding="utf-8")
        try:
            pc.load(path)
        except ValueError as error:
            assert_one_line(error, str(path))


CONFIG = pc.PreUpProjectionBlockConfig(input_dim=8, projection_round=16, dtype="float32")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    arrays = {name: np.ones(p.shape, np.float32) for name, p in pc.parameter_tree(CONFIG).items()}
    write_folder(path, CONFIG, arrays, package="p", version="1")
    return path


def read_damaged(place: str, config: bytes, weights: bytes) -> None:
    path = Path(place)
    (path / CONFIG_FILE).write_bytes(config)
    (path / WEIGHTS_FILE).write_bytes(weights)
    try:
        found, arrays = read_folder(path)
    except ValueError as error:
        assert_one_line(error, place)
    else:
        assert {name: p.shape for name, p in pc.parameter_tree(found).items()} == {
            name: array.shape for name, array in arrays.items()
        }


def damage(data: bytes, seed: int) -> bytes:
    """Bytes changed, cut out, doubled, moved."""
    rng, changed = random.Random(seed), bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        # the beginning matters most: it says what the rest is
        at = rng.randrange(min(len(changed), rng.choice([9, 200, 10**9])) or 1)
        kind = rng.randrange(4)
        if kind == 0 and changed:
            changed[at] = rng.randrange(256)
        elif kind == 1:
            del changed[at : at + rng.choice([1, 8, 10**6])]
        elif kind == 2:
            changed[at:at] = changed[at : at + 16]
        else:
            changed[at:at] = rng.randbytes(rng.choice([1, 8]))
    return bytes(changed)


@MANY
@given(st.integers(0, 2**32), st.integers(0, 2**32), st.booleans(), st.booleans())
def test_folders_with_wrong_bytes(saved: Path, first: int, second: int, config: bool, digest: bool) -> None:
    texts = [(saved / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)]
    if not digest:  # so that damaged weights are looked at
        description = json.loads(texts[0])
        del description[DIGEST]
        texts[0] = json.dumps(description).encode()
    if config:
        texts[0] = damage(texts[0], first)
    else:
        texts[1] = damage(texts[1], second)
    with tempfile.TemporaryDirectory() as place:
        read_damaged(place, *texts)


@MANY
@given(st.data())
def test_folders_with_another_structure(saved: Path, data: st.DataObject) -> None:
    description = json.loads((saved / CONFIG_FILE).read_text())
    weights = (saved / WEIGHTS_FILE).read_bytes()
    size = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + size])
    if data.draw(st.booleans(), "config"):
        description = put(description, data.draw(st.sampled_from(list(places(description)))), data.draw(VALUES))
    else:
        header = put(header, data.draw(st.sampled_from(list(places(header)))), data.draw(VALUES))
        description.pop(DIGEST)
    text = json.dumps(header).encode()
    with tempfile.TemporaryDirectory() as place:
        whole = len(text).to_bytes(8, "little") + text + weights[8 + size :]
        read_damaged(place, json.dumps(description).encode(), whole)
