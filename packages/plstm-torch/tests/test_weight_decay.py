"""Which parameters decay, in models and beyond."""

from typing import Any

import pytest
import torch
from torch import nn

import plstm_config as pc
import plstm_torch
from plstm_torch import build, no_weight_decay, parameter_groups

CONFIGS: dict[str, Any] = {
    "sequence layer": pc.pLSTM1DLayerConfig(input_dim=16, num_heads=2),
    "grid layer": pc.pLSTM2DLayerConfig(input_dim=16, num_heads=2, mode="P"),
    "fused layer": pc.pLSTM2DLayerFusedConfig(input_dim=16, num_heads=2, mode="D", additional_convolution=True),
    "node graph layer": pc.pLSTMGraphLayerConfig(input_dim=16, num_heads=2, max_edges=3),
    "edge graph layer": pc.pLSTMGraphEdgeLayerConfig(input_dim=16, num_heads=2, edge_input_dim=3),
    "vision": pc.preset("plstm_vis_tiny", num_blocks=1, dim=48),
    "vit": pc.preset("vit_tiny", num_blocks=1, dim=48),
    "language": pc.preset("plstm_lm_small_state_tracking", num_blocks=1, embedding_dim=32),
    "tied language": pc.preset("plstm_lm_small", num_blocks=1, embedding_dim=32, tie_weights=True),
    "graphs": pc.pLSTMGraphModelConfig(input_dim=4, dim=32, output_dim=2, edge_input_dim=3),
}


def decays_by_name(name: str, parameter: nn.Parameter) -> bool:
    """The rule of earlier versions, which recognised parameters by their names."""
    last = name.rsplit(".", maxsplit=1)[-1]
    return parameter.ndim > 1 and not last.endswith("bias") and last != "scale" and "pos_embed" not in name


@pytest.mark.parametrize("name", CONFIGS)
def test_the_table_says_what_names_said(name: str) -> None:
    with torch.device("meta"):
        model: Any = build(CONFIGS[name])
    named = dict(model.named_parameters())
    decaying = [parameter for key, parameter in named.items() if decays_by_name(key, parameter)]
    fixed = [parameter for key, parameter in named.items() if not decays_by_name(key, parameter)]
    first, second = parameter_groups(model, 0.05)
    assert (first["weight_decay"], second["weight_decay"]) == (0.05, 0.0)
    # the order matters, too: states of optimizers are stored by it
    assert list(map(id, first["params"])) == list(map(id, decaying))
    assert list(map(id, second["params"])) == list(map(id, fixed))
    assert (
        no_weight_decay(model)
        == model.no_weight_decay()
        == {key for key in named if not decays_by_name(key, named[key])}
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("patch_embed.proj.weight", True),
        ("patch_embed.proj.bias", False),
        ("pos_embed.embed", False),
        ("block_stack.blocks.0.block0.interaction_module.orientation_bias", False),
        ("block_stack.blocks.0.block0.interaction_module.source.weight", True),
        ("block_stack.blocks.0.block0.interaction_module.source.bias", False),
        ("block_stack.blocks.0.block0.interaction_module.mhnorm.scale", False),
        ("block_stack.blocks.0.block0.upproj.weight", True),
        ("norm.scale", False),
        ("head.weight", True),
    ],
)
def test_only_what_multiplies_an_input_decays(name: str, expected: bool) -> None:
    with torch.device("meta"):
        model = build(CONFIGS["vision"])
    assert (name not in no_weight_decay(model)) is expected


def test_parameters_that_are_shared_stand_once() -> None:
    model: Any = build(CONFIGS["language"])
    model.lm_head.weight = model.token_embedding.weight
    parameters = [parameter for group in parameter_groups(model, 0.1) for parameter in group["params"]]
    assert len(parameters) == len(set(parameters)) == len(list(model.parameters()))
    torch.optim.AdamW(parameter_groups(model, 0.1))


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    model: Any = build(pc.RMSNormConfig(input_dim=4))
    assert [group["weight_decay"] for group in parameter_groups(model, 0.1)] == [0.0]
    model.scale.requires_grad_(False)
    assert parameter_groups(model, 0.1) == []
    assert no_weight_decay(model) == {"scale"}


def test_modules_of_others_decay_by_their_number_of_axes() -> None:
    model = nn.ModuleDict({"mine": build(pc.SourceLayerConfig(input_dim=4, weight=True)), "other": nn.Linear(4, 2)})
    assert no_weight_decay(model) == {"mine.bias", "other.bias"}


def test_heads_replaced_by_hand_decay_alike() -> None:
    model: Any = build(CONFIGS["graphs"])
    before = no_weight_decay(model)
    model.head = nn.Linear(32, 7)
    assert no_weight_decay(model) == before


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch.compile's own
def test_compiled_modules_are_sorted_alike() -> None:
    model = build(CONFIGS["sequence layer"])
    groups = parameter_groups(torch.compile(model), 0.1)  # type: ignore[arg-type]
    assert [len(group["params"]) for group in groups] == [len(g["params"]) for g in parameter_groups(model, 0.1)]


def test_both_are_public() -> None:
    assert {"parameter_groups", "no_weight_decay"} <= set(plstm_torch.__all__)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-1, ValueError, "a finite number >= 0, got -1"),
        (float("nan"), ValueError, "a finite"),
        ("a", TypeError, "a number"),
    ],
)
def test_a_decay_that_is_none(value, error, message):
    with pytest.raises(error, match=f"^weight_decay: expected {message}"):
        parameter_groups(nn.Linear(2, 2), value)
