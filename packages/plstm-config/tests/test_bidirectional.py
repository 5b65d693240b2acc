"""What `bidirectional` changes in a config, and that it changes nothing where it is off."""

from typing import Any

import pytest

import plstm_config as pc
from plstm_config.checks import check_sequence
from plstm_config.original import migrate

CAUSAL = pc.pLSTM1DLayerConfig(input_dim=16, num_heads=2)
BOTH = pc.pLSTM1DLayerConfig(input_dim=16, num_heads=2, bidirectional=True)


def test_source_transition_and_mark_have_heads_for_both_directions() -> None:
    causal, both = pc.parameter_tree(CAUSAL), pc.parameter_tree(BOTH)
    assert list(causal) == list(both)
    for name, parameter in both.items():
        doubled = name.split(".")[0] in ("source", "transition", "mark")
        first = parameter.shape[0] // (2 if doubled else 1)
        assert (first, *parameter.shape[1:]) == causal[name].shape


def test_it_is_switched_on_and_off() -> None:
    assert pc.change(CAUSAL, {"bidirectional": True}) == BOTH
    assert pc.change(BOTH, {"bidirectional": False}) == CAUSAL
    assert pc.from_dict(pc.to_dict(BOTH)) == BOTH
    assert (BOTH.num_directions, CAUSAL.num_directions) == (2, 1)


def test_its_convolution_is_centred_and_that_of_others_is_not() -> None:
    given = pc.Convolution1DLayerConfig(kernel_size=3)
    both = pc.pLSTM1DLayerConfig(input_dim=16, num_heads=2, bidirectional=True, convolution=given)
    assert (both.convolution.causal, both.convolution.kernel_size, given.causal) == (False, 3, True)  # type: ignore[union-attr]
    assert CAUSAL.convolution.causal  # type: ignore[union-attr]
    centred = pc.Convolution1DLayerConfig(causal=False)
    with pytest.raises(ValueError, match=r"convolution\.causal: expected True"):
        pc.pLSTM1DLayerConfig(input_dim=16, num_heads=2, convolution=centred)


def test_gates_that_are_given_must_have_the_heads_of_both_directions() -> None:
    gate = pc.SourceLayerConfig(num_heads=2)
    with pytest.raises(ValueError, match=r"source\.num_heads: expected 4"):
        pc.pLSTM1DLayerConfig(input_dim=16, num_heads=2, bidirectional=True, source=gate)
    with pytest.raises(TypeError, match="bidirectional: expected"):
        pc.pLSTM1DLayerConfig(input_dim=16, num_heads=2, bidirectional=1)  # type: ignore[arg-type]


def test_what_holds_the_layer_is_of_its_kind() -> None:
    inner = pc.pLSTM1DLayerConfig(num_heads=2, bidirectional=True)
    for block in (pc.PreUpProjectionBlockConfig, pc.PostUpProjectionBlockConfig):
        stack = pc.BlockStackConfig(block=block(interaction_module=inner), num_blocks=2)
        model: Any = pc.pLSTMLMModelConfig(vocab_size=9, embedding_dim=16, block_stack=stack)
        layer = model.block_stack.block.interaction_module
        assert {one.kind for one in (model, model.block_stack, model.block_stack.block, layer)} == {"bidirectional"}
        vision = pc.pLSTMVisionModelConfig(dim=16, num_blocks=2, block_stack=stack, pooling="cls")
        assert vision.kind == "grid"


def test_packed_sequences_are_all_that_may_be_asked_of_it() -> None:
    check_sequence("bidirectional", "Layer", ["cu_seqlens"])
    with pytest.raises(ValueError, match=r"^cache, return_cache: expected a causal module, got Layer with"):
        check_sequence("bidirectional", "Layer", ["cache", "return_cache", "cu_seqlens"])


def test_configs_of_the_research_code_stay_causal() -> None:
    tree = {"config_class": "Convolution1DLayerConfig", "input_dim": 4, "causal": False, "dtype": "float32"}
    assert migrate(tree).causal  # type: ignore[attr-defined]
