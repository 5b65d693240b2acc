"""The table of parameters in plstm-config is what torch modules hold, for every class of configs."""

import dataclasses
from typing import Any

import pytest
import torch

import plstm_config as pc
from plstm_config.serialization import CONFIG_CLASSES
from plstm_torch.build import build, registered_configs
from plstm_torch.dtypes import torch_dtype

ARGUMENTS: dict[str, dict[str, Any]] = {
    "pLSTMLMModel": {"vocab_size": 11, "embedding_dim": 32},
    "pLSTMGraphModel": {"input_dim": 7, "dim": 32, "output_dim": 2},
    "TokenEmbedding": {"vocab_size": 11, "embedding_dim": 32},
    "BlockStack": {"input_dim": 16, "num_blocks": 2},
    "PatchEmbed": {"dim": 8, "num_channels": 3, "patch_size": 2},
    "PosEmbed2D": {"seqlens": (3, 2), "dim": 8},
    "Linear": {"input_dim": 6, "output_dim": 4},
    "LongRangeTransitionLayer": {"input_dim": 16, "transition_dim": 3},
    "pLSTMVisionModel": {"dim": 16, "num_heads": 2, "num_blocks": 2, "resolution": (32, 32)},
    "pLSTMGraphLayer": {"input_dim": 16, "num_heads": 2, "max_edges": 3},
    "pLSTMGraphEdgeLayer": {"input_dim": 16, "num_heads": 2, "edge_input_dim": 3},
    "pLSTMGraphBlock": {"input_dim": 32, "max_edges": 3},
    "pLSTMGraphEdgeBlock": {"input_dim": 32, "edge_input_dim": 3},
    "MultiHeadRMSNorm": {"input_dim": 16, "num_heads": 2},
    "MultiHeadLayerNorm": {"input_dim": 16, "num_heads": 2},
    "QueryLayer": {"input_dim": 16, "num_heads": 2, "DK": 8},
    "KeyLayer": {"input_dim": 16, "num_heads": 2, "DK": 8},
    "ValueLayer": {"input_dim": 16, "num_heads": 2, "DV": 8},
}
MODULES = {name: cls for name, cls in CONFIG_CLASSES.items() if cls.__name__ in registered_configs()}


def width(cls: type[pc.Config]) -> dict[str, Any]:
    return {"input_dim": 16} if any(field.name == "input_dim" for field in dataclasses.fields(cls)) else {}


CASES: dict[str, pc.Config] = {
    **{name: cls(**(width(cls) | ARGUMENTS.get(name, {}))) for name, cls in MODULES.items()},
    "matrix states": pc.pLSTM2DLayerConfig(input_dim=16, num_heads=2, mode="D", JT=2, JV=2, JO=2, DV=4),
    "fused D": pc.pLSTM2DLayerFusedConfig(input_dim=16, num_heads=2, mode="D", additional_convolution=True),
    "symmetric": pc.LongRangeTransitionLayerConfig(input_dim=16, transition_dim=3, symmetric=True),
    "sub-heads": pc.SourceLayerConfig(input_dim=16, num_heads=4, sub_heads=2, weight=True),
    "everything of a block": pc.PostUpProjectionBlockConfig(input_dim=32, use_scale=True, gated=True, bias=False),
    "no skip": pc.TransformerBlockConfig(input_dim=16, num_heads=2, skip=False),
    "tied": pc.pLSTMLMModelConfig(vocab_size=7, embedding_dim=16, num_blocks=3, tie_weights=True),
    "low precision": pc.pLSTMLMModelConfig(vocab_size=7, embedding_dim=16, param_dtype="bfloat16"),
    "classes by token": pc.preset("vit_tiny", dim=48, num_blocks=2),
    "features": pc.preset("plstm_vis_tiny", dim=48, num_blocks=1, pooling="features"),
    "fixed positions": pc.PosEmbed2DConfig(seqlens=(3, 2), dim=4, learnable=False),
    **{f"preset {name}": pc.preset(name) for name in pc.preset_names() if "small" not in name and "base" not in name},
}


@pytest.mark.parametrize("name", CASES)
def test_modules_work_on_what_their_configs_say(name: str) -> None:
    module = build(CASES[name])
    assert not hasattr(module, "kind") or module.kind == module.config.kind


@pytest.mark.parametrize("name", CASES)
def test_names_shapes_and_kinds(name: str) -> None:
    config = CASES[name]
    with torch.device("meta"):
        module = build(config)
    tree = pc.parameter_tree(config)
    assert {key: tuple(value.shape) for key, value in module.state_dict().items()} == {
        key: parameter.shape for key, parameter in tree.items()
    }
    named = dict(module.named_parameters())
    assert named.keys() == tree.keys()
    for key, parameter in tree.items():
        assert named[key].dtype == torch_dtype(parameter.dtype), key
        assert named[key].requires_grad == parameter.learned, key
    assert pc.count_parameters(config) == sum(value.numel() for value in named.values())
    learned = sum(value.numel() for value in named.values() if value.requires_grad)
    assert pc.count_parameters(config, learned_only=True) == learned


def test_every_class_of_a_module_is_compared() -> None:
    initial = {name for name in CONFIG_CLASSES if name.endswith("Init")}
    assert set(CONFIG_CLASSES) - set(MODULES) <= initial


@pytest.mark.parametrize("name", [name for name in CASES if pc.count_parameters(CASES[name]) < 10**6])
def test_drawing_anew_gives_the_same(name: str) -> None:
    torch.manual_seed(3)
    module: Any = build(CASES[name])
    before = {key: value.clone() for key, value in module.state_dict().items()}
    torch.manual_seed(3)
    module.reset_parameters()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_angles_are_drawn_by_orientation_and_stored_by_head() -> None:
    config = pc.pLSTM2DLayerFusedConfig(
        input_dim=15,
        num_heads=5,
        DK=3,
        pmode_orientation_bias_init=pc.LinspaceInitConfig(low=0.0, high=4.0, axis=-1),
    )
    bias = build(config).orientation_bias
    assert bias.shape == (5, 4)
    # the initialiser counts heads along the last axis of [O, H]
    assert torch.equal(bias, torch.arange(5.0)[:, None].expand(5, 4))


def test_transitions_of_nodes_are_drawn_between_slots() -> None:
    init = pc.LinspaceInitConfig(low=0.0, high=2.0, axis=-1)
    config = pc.pLSTMGraphLayerConfig(input_dim=16, num_heads=2, max_edges=3, transition_bias_init=init)
    bias = build(config).transition.bias
    assert torch.equal(bias.view(2, 3, 3), torch.arange(3.0).expand(2, 3, 3))
