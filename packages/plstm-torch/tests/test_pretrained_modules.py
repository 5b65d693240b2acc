"""Modules that were changed by hand: shared, wrapped and replaced parts, other classes, other dtypes."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import plstm_config as pc
from plstm_config.folder import read_folder, write_folder
from plstm_torch import build, from_pretrained, load_weights, save_pretrained

Randomize = Callable[[nn.Module], nn.Module]
WEIGHTS = "model.safetensors"
LANGUAGE = pc.pLSTMLMModelConfig(vocab_size=7, embedding_dim=8, num_blocks=2, dtype="float32")
VISION = pc.pLSTMVisionModelConfig(
    dim=8, num_heads=2, num_blocks=1, patch_size=4, resolution=(8, 8), output_shape=(3,), dtype="float32"
)
TOKENS = torch.tensor([[1, 5, 2]])

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch.compile's own


def tie_the_head(model: Any) -> None:
    model.lm_head.weight = model.token_embedding.weight


def tie_the_memory(model: Any) -> None:
    model.lm_head.weight = nn.Parameter(model.token_embedding.weight.data)


def use_a_block_twice(model: Any) -> None:
    model.block_stack.blocks[1] = model.block_stack.blocks[0]


TIES = [tie_the_head, tie_the_memory, use_a_block_twice]


@pytest.mark.parametrize("tie", TIES)
def test_shared_parameters_are_loaded_by_modules_that_do_not_share(
    tmp_path: Path, randomize: Randomize, tie: Callable[[Any], None]
) -> None:
    model = randomize(build(LANGUAGE)).eval()
    tie(model)
    save_pretrained(model, tmp_path)
    assert load_file(tmp_path / WEIGHTS).keys() == pc.parameter_tree(LANGUAGE).keys()
    assert torch.equal(from_pretrained(tmp_path)(TOKENS), model(TOKENS))
    other = build(LANGUAGE).eval()
    tie(other)
    load_weights(other, tmp_path)
    assert torch.equal(other(TOKENS), model(TOKENS))


@pytest.mark.parametrize("tie", TIES)
def test_one_of_two_weights_is_not_chosen_in_silence(
    tmp_path: Path, randomize: Randomize, tie: Callable[[Any], None]
) -> None:
    save_pretrained(randomize(build(LANGUAGE)), tmp_path)
    model = build(LANGUAGE)
    tie(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"expected the values of .*, since the module shares one parameter for both"):
        load_weights(model, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_folders_in_which_shared_parameters_stand_once(tmp_path: Path, randomize: Randomize) -> None:
    model: Any = randomize(build(LANGUAGE))
    save_pretrained(build(pc.change(LANGUAGE, {"tie_weights": True})), tmp_path)
    tie_the_head(model)
    load_weights(model, tmp_path)
    assert torch.equal(model.token_embedding.weight, load_file(tmp_path / WEIGHTS)["token_embedding.weight"])
    assert model.lm_head.weight is model.token_embedding.weight


def compiled_top(model: nn.Module) -> nn.Module:
    return torch.compile(model)  # type: ignore[return-value]


def compiled_parts(model: Any) -> nn.Module:
    model.block_stack.blocks[0] = torch.compile(model.block_stack.blocks[0])
    model.block_stack.blocks[1].norm = torch.compile(model.block_stack.blocks[1].norm)
    model.block_stack = torch.compile(model.block_stack)
    return model


def distributed_top(model: nn.Module) -> nn.Module:
    return torch.compile(DistributedDataParallel(model))  # type: ignore[return-value]


def distributed_parts(model: Any) -> nn.Module:
    model.block_stack = DistributedDataParallel(torch.compile(model.block_stack))
    model.lm_head = nn.DataParallel(model.lm_head)
    return model


def averaged(model: nn.Module) -> nn.Module:
    return AveragedModel(model)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("wrap", [compiled_top, compiled_parts, distributed_top, distributed_parts, averaged])
def test_wrappers_leave_no_trace_in_names(
    tmp_path: Path, randomize: Randomize, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    model = randomize(build(LANGUAGE)).eval()
    expected = model(TOKENS)
    save_pretrained(wrap(copy.deepcopy(model)), tmp_path / "saved")
    assert load_file(tmp_path / "saved" / WEIGHTS).keys() == pc.parameter_tree(LANGUAGE).keys()
    assert torch.equal(from_pretrained(tmp_path / "saved")(TOKENS), expected)
    wrapped = wrap(build(LANGUAGE))
    load_weights(wrapped, tmp_path / "saved")
    values = zip(wrapped.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(value, original) for value, original in values)


@pytest.mark.usefixtures("process_group")
def test_sharded_modules(tmp_path: Path, randomize: Randomize) -> None:
    model, other = randomize(build(LANGUAGE)).eval(), build(LANGUAGE)
    expected = model(TOKENS)
    mesh = init_device_mesh("cpu", (1,))
    fully_shard(model, mesh=mesh)
    fully_shard(other, mesh=mesh)
    save_pretrained(model, tmp_path / "saved")
    assert torch.equal(from_pretrained(tmp_path / "saved")(TOKENS), expected)
    load_weights(other, tmp_path / "saved")
    named = dict(model.named_parameters())
    for name, value in other.named_parameters():
        assert torch.equal(value.full_tensor(), named[name].full_tensor())  # type: ignore[operator]


def replace_the_head(model: Any) -> None:
    model.head = nn.Linear(32, 5)


def remove_the_head(model: Any) -> None:
    model.head = nn.Identity()


def replace_a_block(model: Any) -> None:
    model.block_stack.blocks[0] = build(pc.TransformerBlockConfig(input_dim=8))


def append_a_block(model: Any) -> None:
    model.block_stack.blocks.append(copy.deepcopy(model.block_stack.blocks[0]))


def add_a_buffer(model: Any) -> None:
    model.register_buffer("steps", torch.zeros((), dtype=torch.long))


def parametrize(model: Any) -> None:
    nn.utils.parametrizations.weight_norm(model.head)


def quantize(model: Any) -> None:
    model.head.weight = nn.Parameter(model.head.weight.data.to(torch.float8_e4m3fn), requires_grad=False)


BY_HAND = {
    replace_the_head: r"head\.bias: expected shape \(3,\), got \(5,\)",
    remove_the_head: r"missing 'head\.bias', 'head\.weight'",
    replace_a_block: r"missing .*unexpected",
    append_a_block: r"unexpected 'block_stack\.blocks\.1\.",
    add_a_buffer: r"unexpected 'steps'",
    parametrize: r"missing 'head\.weight'; unexpected 'head\.parametrizations",
    quantize: r"head\.weight: expected dtype float64 or .*, got float8_e4m3fn",
}


@pytest.mark.parametrize("change", BY_HAND, ids=lambda change: change.__name__)
def test_modules_that_their_config_does_not_describe(tmp_path: Path, change: Callable[[Any], None]) -> None:
    model = build(VISION)
    change(model)
    with pytest.raises(
        ValueError,
        match=rf"(?s)^module: expected the weights of pLSTMVisionModel, got others: .*"
        rf"{BY_HAND[change]}.*plstm_config\.change",
    ):
        save_pretrained(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_part_replaced_by_one_of_the_same_shape_is_saved(tmp_path: Path) -> None:
    model: Any = build(VISION)
    model.head = nn.Linear(32, 3)
    save_pretrained(model, tmp_path)
    assert torch.equal(from_pretrained(tmp_path).head.weight, model.head.weight)


def test_submodules_that_are_no_modules_of_their_own(tmp_path: Path) -> None:
    model: Any = build(VISION)
    for part in (model.patch_embed.proj, model.block_stack.blocks, None, 3):
        with pytest.raises(TypeError, match=r"^module: expected a module made by plstm_torch\.build, got"):
            save_pretrained(part, tmp_path)
    with pytest.raises(TypeError, match=r"^module: expected a torch module, got int"):
        load_weights(3, tmp_path)  # type: ignore[arg-type]


def test_a_module_without_numbers(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = build(VISION)
    with pytest.raises(ValueError, match="got a tensor on the meta device"):
        save_pretrained(model, tmp_path)


@pytest.fixture
def vision(tmp_path: Path, randomize: Randomize) -> Any:
    model = randomize(build(VISION)).eval()
    save_pretrained(model, tmp_path)
    return model


def test_another_number_of_classes(tmp_path: Path, vision: Any) -> None:
    torch.manual_seed(1)
    model: Any = from_pretrained(tmp_path, num_classes=5)
    assert model(torch.zeros(2, 8, 8, 3)).shape == (2, 5)
    assert model.config == pc.change(VISION, {"output_shape": (5,)})
    for name, value in model.state_dict().items():
        assert name.startswith("head.") or torch.equal(value, vision.state_dict()[name])
    again: Any = from_pretrained(tmp_path, num_classes=5)
    assert not torch.equal(again.head.weight, model.head.weight)
    torch.manual_seed(1)
    assert torch.equal(from_pretrained(tmp_path, num_classes=5).head.weight, model.head.weight)
    save_pretrained(model, tmp_path / "other")
    assert torch.equal(from_pretrained(tmp_path / "other").head.weight, model.head.weight)


def test_the_same_number_of_classes_keeps_the_head(tmp_path: Path, vision: Any) -> None:
    before = torch.get_rng_state()
    assert torch.equal(from_pretrained(tmp_path, num_classes=3).head.weight, vision.head.weight)
    assert torch.equal(before, torch.get_rng_state())


def test_classes_of_graphs(tmp_path: Path) -> None:
    save_pretrained(build(pc.pLSTMGraphModelConfig(input_dim=4, dim=32, output_dim=2)), tmp_path)
    assert from_pretrained(tmp_path, num_classes=9).head.weight.shape == (9, 32)


@pytest.mark.parametrize("number", [0, -1, 2.0, "3", True, (3,)])
def test_numbers_of_classes_that_are_none(tmp_path: Path, vision: Any, number: Any) -> None:
    with pytest.raises(ValueError, match=r"^num_classes: expected an integer >= 1, got "):
        from_pretrained(tmp_path, num_classes=number)


@pytest.mark.parametrize("config", [LANGUAGE, pc.change(VISION, {"pooling": "features"})])
def test_models_without_a_head_for_classes(tmp_path: Path, config: pc.Config) -> None:
    save_pretrained(build(config), tmp_path)
    with pytest.raises(ValueError, match=r"^num_classes: expected None for a pLSTM.*Model without a head for classes"):
        from_pretrained(tmp_path, num_classes=3)


def test_parts_that_are_left_out(tmp_path: Path, vision: Any) -> None:
    features: Any = build(pc.change(VISION, {"pooling": "features"}))
    with pytest.raises(ValueError, match=r"unexpected 'head\.bias', 'head\.weight'\n.* ignore=\(\.\.\.\)\) leaves"):
        load_weights(features, tmp_path)
    load_weights(features, tmp_path, ignore=("head",))
    assert torch.equal(features.norm.scale, vision.norm.scale)
    other: Any = build(pc.change(VISION, {"output_shape": (5,)}))
    head = other.head.weight.clone()
    load_weights(other, tmp_path, ignore=["head"])
    assert torch.equal(other.head.weight, head)
    assert torch.equal(other.norm.scale, vision.norm.scale)
    replaced: Any = build(VISION)
    replaced.head = nn.Linear(32, 9)
    load_weights(replaced, tmp_path, ignore=("head",))
    save_pretrained(features, tmp_path / "features")
    with pytest.raises(ValueError, match=r"missing 'head\.weight'$"):
        load_weights(vision, tmp_path / "features", ignore=("head.bias",))


@pytest.mark.parametrize("ignore", ["head", None, 3, (3,)])
def test_what_is_left_out_is_named(tmp_path: Path, vision: Any, ignore: Any) -> None:
    with pytest.raises(TypeError, match=r"^ignore: expected a sequence of names of parts, got"):
        load_weights(vision, tmp_path, ignore=ignore)


def test_names_that_nothing_has(tmp_path: Path, vision: Any) -> None:
    for name in ("heads", "hea", "head.weigh", ""):
        with pytest.raises(ValueError, match=rf"^ignore: expected names of parts of the module or the .* got '{name}'"):
            load_weights(vision, tmp_path, ignore=(name,))


def test_numbers_that_a_dtype_has_no_room_for(tmp_path: Path, vision: Any) -> None:
    state = load_file(tmp_path / WEIGHTS)
    state["norm.scale"][0] = 1e30
    state["norm.scale"][1] = torch.inf
    save_pretrained(vision, tmp_path / "large")
    config, arrays = read_folder(tmp_path / "large")
    arrays["norm.scale"] = state["norm.scale"].numpy()
    write_folder(tmp_path / "large", config, arrays, package="p", version="1")
    half = build(VISION).half()
    with pytest.raises(
        ValueError, match=r"norm\.scale: expected numbers within the range of torch\.float16, got 1.*30"
    ):
        load_weights(half, tmp_path / "large")
    assert torch.isposinf(from_pretrained(tmp_path / "large").norm.scale[1])


def test_a_stranger_asks_for_more_than_there_is(tmp_path: Path) -> None:
    config: Any = pc.BlockStackConfig(input_dim=8, num_blocks=1, block=pc.TransformerBlockConfig(input_dim=8))
    save_pretrained(build(config), tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"num_blocks": 1', '"num_blocks": 10000000'))
    with pytest.raises(ValueError, match=r"model\.safetensors: .* missing 'blocks\.1\..* and at least \d{9} more"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_numbers_pass_unchanged_in_every_dtype(tmp_path: Path, randomize: Randomize, dtype: Any) -> None:
    module = randomize(build(pc.change(LANGUAGE, {"param_dtype": dtype})))
    save_pretrained(module, tmp_path)
    loaded = from_pretrained(tmp_path).state_dict()
    for name, value in module.state_dict().items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value)


def test_what_torch_and_numpy_write_is_the_same(tmp_path: Path, vision: Any) -> None:
    save_file(dict(vision.state_dict()), tmp_path / "torch", metadata={"format": "pt"})
    assert (tmp_path / "torch").read_bytes() == (tmp_path / WEIGHTS).read_bytes()


def test_a_config_of_no_module(tmp_path: Path) -> None:
    write_folder(tmp_path, pc.ZerosInitConfig(), {}, package="p", version="1")
    with pytest.raises(
        ValueError, match=r"expected a config that this backend can build, got one with config: expected an instance"
    ):
        from_pretrained(tmp_path)
