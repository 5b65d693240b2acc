"""New configs from finished ones: what follows, and what stays."""

import dataclasses
from typing import Any

import pytest

import plstm_config as pc

ZEROS = pc.ZerosInitConfig()
GIVEN = pc.pLSTM2DLayerFusedConfig(num_heads=2, source=pc.SourceLayerConfig(weight=True), mhnorm=pc.IdentityConfig())
CONFIGS: dict[str, Any] = {
    "layer": pc.pLSTM1DLayerConfig(input_dim=16, num_heads=2),
    "layer with given parts": pc.pLSTM2DLayerFusedConfig(input_dim=8, source=pc.SourceLayerConfig(weight=True)),
    "graph layer": pc.pLSTMGraphEdgeLayerConfig(input_dim=16, num_heads=2, edge_input_dim=3),
    "block": pc.PreUpProjectionBlockConfig(input_dim=16),
    "block with a given layer": pc.PostUpProjectionBlockConfig(input_dim=16, interaction_module=GIVEN, use_scale=True),
    "baseline": pc.TransformerBlockConfig(input_dim=16, num_heads=2),
    "vision model": pc.pLSTMVisionModelConfig(dim=32, num_heads=2, resolution=(32, 32)),
    "language model": pc.pLSTMLMModelConfig(vocab_size=11, embedding_dim=32),
    "graph model": pc.pLSTMGraphModelConfig(input_dim=4, output_dim=2, edge_input_dim=3),
    **{name: pc.preset(name) for name in pc.preset_names() if "base" not in name},
}


@pytest.fixture(params=[False, True], ids=["made", "loaded"])
def loaded(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.mark.parametrize("name", CONFIGS)
def test_no_change_is_no_change(name: str, loaded: bool) -> None:
    config = pc.from_dict(pc.to_dict(CONFIGS[name])) if loaded else CONFIGS[name]
    assert pc.change(config, {}) == pc.change(config, {"dtype": config.dtype}) == CONFIGS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_dtype_reaches_every_child_that_had_it(name: str, loaded: bool) -> None:
    config = pc.from_dict(pc.to_dict(CONFIGS[name])) if loaded else CONFIGS[name]
    changed = pc.change(config, {"dtype": "float64", "param_dtype": "float64"})
    old, new = dict(leaves(pc.to_dict(config))), dict(leaves(pc.to_dict(changed)))
    for path, value in old.items():
        if path.endswith("dtype"):
            follows = value == getattr(config, path.rsplit(".", 1)[-1])
            assert new[path] == ("float64" if follows else value), path
        else:
            assert new[path] == value


def leaves(tree: Any, path: str = "") -> Any:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}")
    else:
        yield path, tree


def test_what_was_derived_is_derived_anew(loaded: bool) -> None:
    config: Any = pc.pLSTM1DLayerConfig(input_dim=32, num_heads=4, JT=1, JV=1, JO=1)
    config = pc.from_dict(pc.to_dict(config)) if loaded else config
    wide: Any = pc.change(config, {"input_dim": 64})
    assert wide == pc.pLSTM1DLayerConfig(input_dim=64, num_heads=4, JT=1, JV=1, JO=1)
    assert (wide.DK, wide.source.input_dim, wide.mhnorm.input_dim, wide.sub_heads) == (16, 64, 64, 4)
    assert (config.DK, config.source.input_dim) == (8, 32)


def test_names_reach_into_children_and_leave_the_rest() -> None:
    config: Any = pc.preset("plstm_vis_tiny")
    name = "block_stack.block.block0.interaction_module.source.bias_init"
    changed: Any = pc.change(config, {name: pc.ZerosInitConfig(), "dim": 96, "num_blocks": 2})
    layer, other = (
        block.interaction_module for block in (changed.block_stack.block.block0, changed.block_stack.block.block1)
    )
    assert (layer.source.bias_init, other.source.bias_init) == (pc.ZerosInitConfig(), pc.ConstantInitConfig(value=-4.0))
    assert (layer.DK, layer.input_dim, changed.patch_embed.dim, changed.block_stack.num_blocks) == (32, 96, 96, 2)


def test_a_switch_brings_its_child() -> None:
    config: Any = pc.pLSTM2DLayerFusedConfig(input_dim=8)
    changed: Any = pc.change(config, {"additional_convolution": True, "convolution.kernel_size": (5, 3)})
    assert changed.convolution == pc.Convolution2DLayerConfig(input_dim=8, kernel_size=(5, 3))
    assert changed.convolution.weight_init.high == 15**-0.5


@pytest.mark.parametrize("name", ["vision model", "graph model", "language model", "pair"])
def test_what_the_parents_made_follows_also_after_loading(name: str, loaded: bool) -> None:
    """A field that says of what a child is made never does nothing."""
    pair = pc.pLSTMGraphBlockConfig(input_dim=16, num_heads=2, max_edges=4, block_type="pre_up")
    made: Any = (CONFIGS | {"pair": pair})[name]
    config = pc.from_dict(pc.to_dict(made)) if loaded else made
    changes = {"block_type": "post_up"} if name in ("language model", "pair") else {"num_heads": 8}
    fields = {item.name: getattr(made, item.name) for item in dataclasses.fields(made) if item.init}
    left_out = {"block_stack": None, "block0": None, "block1": None}
    fresh = type(made)(**fields | {part: None for part in left_out if part in fields} | changes)
    assert pc.change(config, changes) == fresh != made
    assert repr(config) == repr(made)


def test_fields_tell_what_given_children_are() -> None:
    heads = pc.pLSTM2DLayerFusedConfig(num_heads=2), pc.pLSTM2DLayerFusedConfig(num_heads=2, mode="D")
    blocks = [pc.PreUpProjectionBlockConfig(interaction_module=layer) for layer in heads]
    pair = pc.pLSTMVisionBlockConfig(block0=blocks[0], block1=blocks[1])
    model: Any = pc.pLSTMVisionModelConfig(dim=32, block_stack=pc.BlockStackConfig(block=pair, num_blocks=1))
    assert (model.num_heads, model.block_stack.block.num_heads, model.block_stack.block.block_type) == (2, 2, "pre_up")
    stack = pc.BlockStackConfig(block=pc.PostUpProjectionBlockConfig(), num_blocks=1)
    assert pc.pLSTMLMModelConfig(vocab_size=3, embedding_dim=32, block_stack=stack).block_type == "post_up"
    nodes = pc.BlockStackConfig(block=pc.pLSTMGraphBlockConfig(num_heads=2, max_edges=3))
    graphs: Any = pc.pLSTMGraphModelConfig(input_dim=3, dim=8, output_dim=2, edge_input_dim=5, block_stack=nodes)
    assert (graphs.num_heads, graphs.edge_input_dim) == (2, 0)


def test_given_blocks_need_none_that_could_be_made_here(loaded: bool) -> None:
    """Four heads of a width of 8 have no features for the four state-tracking dimensions of a layer's default."""
    layer = pc.pLSTM1DLayerConfig(num_heads=2, JT=2, JV=2, JO=2)
    stack = pc.BlockStackConfig(num_blocks=1, block=pc.PostUpProjectionBlockConfig(interaction_module=layer))
    made: Any = pc.pLSTMLMModelConfig(vocab_size=3, embedding_dim=8, block_stack=stack)
    config = pc.from_dict(pc.to_dict(made)) if loaded else made
    changed: Any = pc.change(config, {"dtype": "float64"})
    assert changed.block_stack.block.interaction_module.dtype == "float64"
    assert changed.block_stack.block.interaction_module.num_heads == 2
    with pytest.raises(ValueError, match=r"^DV: expected at least one of input_dim=8 for each head, got 0"):
        pc.change(config, {"block_stack": None})


@pytest.mark.parametrize(("name", "value"), [("num_heads", 6), ("block_stack.block.num_heads", 6)])
def test_a_change_without_effect_is_refused(name: str, value: Any, loaded: bool) -> None:
    config = pc.preset("plstm_vis_tiny")
    config = pc.from_dict(pc.to_dict(config)) if loaded else config
    with pytest.raises(
        ValueError, match=rf"^changes: expected '{name}' to be 3, as children that were given say, got 6"
    ):
        pc.change(config, {name: value})


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (pc.pLSTM2DLayerConfig(input_dim=16, num_heads=2), {"input_dim": 15, "num_heads": 3}),
        (CONFIGS["vision model"], {"resolution": (20, 20), "patch_size": 5}),
        (
            CONFIGS["block with a given layer"],
            {"input_dim": 15, "interaction_module.num_heads": 3, "interaction_module.source.bias_init": ZEROS},
        ),
    ],
)
def test_changes_need_to_fit_together_only(config: Any, changes: dict[str, Any], order: int, loaded: bool) -> None:
    """None of them fits alone, whatever comes first."""
    config = pc.from_dict(pc.to_dict(config)) if loaded else config
    changed = pc.change(config, dict(list(changes.items())[::order]))
    for name, value in changes.items():
        found: Any = changed
        for part in name.split("."):
            found = getattr(found, part)
        assert found == value, name
    assert changed == pc.from_dict(pc.to_dict(changed))


def test_changes_that_do_not_fit_in_the_end_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^input_dim: expected a multiple of num_heads=3, got 16"):
        pc.change(CONFIGS["layer"], {"num_heads": 3, "JQ": 2})


def test_wrong_changes_are_refused() -> None:
    config = pc.pLSTM1DLayerConfig(input_dim=8)
    with pytest.raises(TypeError, match=r"^config: expected a config of plstm_config, got int"):
        pc.change(3, {})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^changes: expected a mapping from names to values, got list"):
        pc.change(config, [])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got 'source.spam': SourceLayerConfig has no field 'spam', it has JK, JT"):
        pc.change(config, {"source.spam": 1})
    with pytest.raises(
        ValueError, match=r"got 'passthrough.scale_init.x.y': ZerosInitConfig has no field 'x'|OnesInit"
    ):
        pc.change(config, {"passthrough.scale_init.x.y": 1})
    with pytest.raises(ValueError, match=r"pLSTM2DLayerFusedConfig.convolution is None here"):
        pc.change(pc.pLSTM2DLayerFusedConfig(input_dim=8), {"convolution.bias": False})
    with pytest.raises(ValueError, match=r"source.input_dim: expected 8 here"):
        pc.change(config, {"source.input_dim": 4})
