"""Cases of blocks, stacks, embeddings and whole models."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from plstm_config import (
    BlockStackConfig,
    IdentityConfig,
    LayerNormConfig,
    PatchEmbedConfig,
    PosEmbed2DConfig,
    PostUpProjectionBlockConfig,
    PreUpProjectionBlockConfig,
    ScaleLayerConfig,
    SoftCapFunctionConfig,
    TokenEmbeddingConfig,
    TransformerBlockConfig,
    pLSTMGraphBlockConfig,
    pLSTMGraphEdgeBlockConfig,
    pLSTMGraphModelConfig,
    pLSTMLMModelConfig,
    pLSTMVisionBlockConfig,
    pLSTMVisionModelConfig,
)

from .layer_cases import EDGES, GRAPHS, NUM_NODES, WIDTH, grid_layer, sequence_layer
from .module_draws import FLOAT64, ModuleCase, case

BOTH_WAYS = sequence_layer(input_dim=-1, bidirectional=True)
NARROW: dict[str, Any] = {"projection_scaling": 1.5, "projection_round": 4}
TOKENS = np.array([[3, 1, 4, 1, 5], [0, 2, 6, 5, 3]])
VOCABULARY = 7


@cache
def model_cases() -> tuple[ModuleCase, ...]:
    """All cases of blocks and models."""
    groups = (_sequence_blocks, _transformers, _pairs, _stacks, _embeddings, _language, _vision, _graph_models)
    return tuple(found for group in groups for found in group())


def pre_up(**options: Any) -> PreUpProjectionBlockConfig:
    """A narrow pre-up-projection block around a small layer on sequences."""
    layer = sequence_layer(input_dim=-1, outprojection=False)
    return PreUpProjectionBlockConfig(
        **{"input_dim": WIDTH, "interaction_module": layer, **NARROW, **FLOAT64, **options}
    )


def post_up(**options: Any) -> PostUpProjectionBlockConfig:
    """A narrow post-up-projection block around a small layer on sequences."""
    layer = sequence_layer(input_dim=-1)
    return PostUpProjectionBlockConfig(
        **{"input_dim": WIDTH, "interaction_module": layer, **NARROW, **FLOAT64, **options}
    )


def _sequence_blocks() -> Iterator[ModuleCase]:
    layer_norm = LayerNormConfig(bias=True, **FLOAT64)
    shared: dict[str, dict[str, Any]] = {
        "plain": {},
        "no_skip": {"skip": False},
        "no_bias": {"bias": False},
        "layer_norm": {"norm": layer_norm},
        "identity": {"norm": IdentityConfig()},
    }
    for name, options in {**shared, "not_gated": {"gated": False}}.items():
        yield case(f"pre_up_{name}", pre_up(**options), 2, 5, WIDTH)
    yield case("pre_up_bidirectional", pre_up(interaction_module=BOTH_WAYS), 2, 5, WIDTH)
    yield case("pre_up_grid", pre_up(interaction_module=grid_layer(input_dim=-1)), 1, 2, 3, WIDTH)
    own: dict[str, dict[str, Any]] = {
        "gated": {"gated": True},
        "gated_silu": {"gated": True, "gating_function": "silu"},
        "gelu_tanh": {"gating_function": "gelu_tanh"},
        "scaled": {"use_scale": True},
        "scaled_no_skip": {"use_scale": True, "skip": False},
        "drop_path": {"drop_path_rate": 0.5},
        "scale_given": {"use_scale": True, "scale": ScaleLayerConfig(**FLOAT64)},
    }
    for name, options in {**shared, **own}.items():
        yield case(f"post_up_{name}", post_up(**options), 2, 5, WIDTH)
    yield case("post_up_bidirectional", post_up(interaction_module=BOTH_WAYS), 2, 5, WIDTH)
    yield case("post_up_grid", post_up(interaction_module=grid_layer(input_dim=-1, mode="D")), 1, 3, 2, WIDTH)


def _transformers() -> Iterator[ModuleCase]:
    common: dict[str, Any] = {"input_dim": WIDTH, "num_heads": 2, **NARROW, **FLOAT64}
    yield case("transformer", TransformerBlockConfig(**common), 2, 5, WIDTH)
    yield case("transformer_grid", TransformerBlockConfig(gated=True, **common), 2, 2, 3, WIDTH)
    yield case("transformer_no_skip", TransformerBlockConfig(skip=False, bias=False, **common), 2, 4, WIDTH)


def _pairs() -> Iterator[ModuleCase]:
    common: dict[str, Any] = {"input_dim": WIDTH, "num_heads": 2, **FLOAT64}
    for mode in ("PD", "DP", "PP", "DD"):
        yield case(f"vision_block_{mode}", pLSTMVisionBlockConfig(block_mode=mode, **common), 1, 2, 3, WIDTH)
    pre = pLSTMVisionBlockConfig(block_type="pre_up", drop_path_rate=0.3, **common)
    yield case("vision_block_pre_up", pre, 1, 2, 3, WIDTH)
    for kind in ("post_up", "pre_up"):
        config = pLSTMGraphBlockConfig(block_type=kind, max_edges=4, **common)
        yield case(f"graph_block_{kind}", config, NUM_NODES, WIDTH, graph=GRAPHS)
        edge = pLSTMGraphEdgeBlockConfig(block_type=kind, block_mode="DP", edge_input_dim=3, **common)
        yield case(f"graph_edge_block_{kind}", edge, NUM_NODES, WIDTH, graph=GRAPHS, edge_attr=(len(EDGES), 3))


def _stacks() -> Iterator[ModuleCase]:
    for name, block in (("pre_up", pre_up()), ("post_up", post_up()), ("transformer", None)):
        chosen = block or TransformerBlockConfig(input_dim=WIDTH, num_heads=2, **NARROW, **FLOAT64)
        stack = BlockStackConfig(input_dim=WIDTH, num_blocks=2, block=chosen, **FLOAT64)
        yield case(f"stack_{name}", stack, 2, 4, WIDTH)
    both = BlockStackConfig(
        input_dim=WIDTH, num_blocks=2, block=post_up(interaction_module=BOTH_WAYS), scan_blocks=True, **FLOAT64
    )
    yield case("stack_bidirectional", both, 2, 4, WIDTH)
    scanned = BlockStackConfig(input_dim=WIDTH, num_blocks=3, block=post_up(), scan_blocks=True, **FLOAT64)
    yield case("stack_scanned", scanned, 1, 3, WIDTH)


def _embeddings() -> Iterator[ModuleCase]:
    table = TokenEmbeddingConfig(vocab_size=VOCABULARY, embedding_dim=WIDTH, **FLOAT64)
    yield case("token_embedding", table, token_ids=TOKENS)
    patches: dict[str, dict[str, Any]] = {
        "square": {"patch_size": 2},
        "oblong": {"patch_size": (2, 3)},
        "overlapping": {"patch_size": 4, "stride": (2, 1)},
    }
    for name, options in patches.items():
        config = PatchEmbedConfig(dim=WIDTH, num_channels=2, **options, **FLOAT64)
        yield case(f"patch_embed_{name}", config, pixels=(2, 4, 6, 2))
    first = PatchEmbedConfig(dim=WIDTH, num_channels=2, patch_size=2, channels_first=True, **FLOAT64)
    yield case("patch_embed_channels_first", first, pixels=(2, 2, 4, 6))
    for name, grid in {"same": (3, 4), "larger": (5, 7), "smaller": (2, 2), "one_axis": (3, 9), "one": (1, 1)}.items():
        positions = PosEmbed2DConfig(dim=WIDTH, seqlens=(3, 4), **FLOAT64)
        yield case(f"pos_embed_{name}", positions, 2, *grid, WIDTH)


def language_model(**options: Any) -> pLSTMLMModelConfig:
    """A small language model around narrow blocks."""
    stack = BlockStackConfig(input_dim=WIDTH, num_blocks=2, block=pre_up(), **FLOAT64)
    return pLSTMLMModelConfig(**{"vocab_size": VOCABULARY, "block_stack": stack, **FLOAT64, **options})


def _language() -> Iterator[ModuleCase]:
    both = BlockStackConfig(input_dim=WIDTH, num_blocks=2, block=post_up(interaction_module=BOTH_WAYS), **FLOAT64)
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "bidirectional": {"block_stack": both},
        "tied": {"tie_weights": True},
        "small_cap": {"logit_soft_cap": SoftCapFunctionConfig(scale=0.7)},
        "no_cap": {"logit_soft_cap": None},
        "layer_norm": {"post_blocks_norm": LayerNormConfig(**FLOAT64)},
        "post_up": {"block_stack": BlockStackConfig(input_dim=WIDTH, num_blocks=2, block=post_up(), **FLOAT64)},
    }
    for name, chosen in options.items():
        yield case(f"language_{name}", language_model(**chosen), token_ids=TOKENS)


def _vision_stack(block: Any) -> BlockStackConfig:
    return BlockStackConfig(input_dim=WIDTH, num_blocks=1, block=block, **FLOAT64)


def _vision() -> Iterator[ModuleCase]:
    common: dict[str, Any] = {"dim": WIDTH, "num_channels": 2, "patch_size": 2, "num_blocks": 1, "num_heads": 2}
    common |= {"output_shape": (5,), "resolution": (4, 6), **FLOAT64}
    for pooling in ("corners", "center", "mean", "sum", "to_image", "features"):
        yield case(f"vision_{pooling}", pLSTMVisionModelConfig(pooling=pooling, **common), pixels=(1, 4, 6, 2))
    attention = TransformerBlockConfig(input_dim=WIDTH, num_heads=2, **NARROW, **FLOAT64)
    options: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
        "channels_first": ({"channels_first": True}, (1, 2, 4, 6)),
        "other_resolution": ({}, (1, 8, 4, 2)),
        "stride": ({"stride": 1, "resolution": (3, 4)}, (1, 3, 4, 2)),
        "no_positions": ({"use_pos_embed": False, "norm": IdentityConfig()}, (1, 4, 6, 2)),
        "soft_cap": ({"logit_softcap": SoftCapFunctionConfig(scale=0.5)}, (1, 4, 6, 2)),
        "cls_attention": ({"pooling": "cls", "block_stack": _vision_stack(attention)}, (1, 4, 6, 2)),
        "cls_sequence": ({"pooling": "cls", "block_stack": _vision_stack(post_up())}, (1, 4, 6, 2)),
        "cls_bidirectional": (
            {"pooling": "cls", "block_stack": _vision_stack(post_up(interaction_module=BOTH_WAYS))},
            (1, 4, 6, 2),
        ),
        "bidirectional_mean": (
            {"pooling": "mean", "block_stack": _vision_stack(post_up(interaction_module=BOTH_WAYS))},
            (1, 4, 6, 2),
        ),
        "sequence_corners": ({"block_stack": _vision_stack(post_up())}, (1, 4, 6, 2)),
        "attention_mean": ({"pooling": "mean", "block_stack": _vision_stack(attention)}, (1, 4, 6, 2)),
    }
    for name, (chosen, shape) in options.items():
        yield case(f"vision_{name}", pLSTMVisionModelConfig(**{**common, **chosen}), pixels=shape)


def _graph_models() -> Iterator[ModuleCase]:
    common: dict[str, Any] = {"input_dim": 5, "dim": WIDTH, "output_dim": 3, "num_heads": 2, "num_blocks": 3}
    common |= {"max_edges": 4, "max_degree": 2, **FLOAT64}
    for pooling in ("mean", "sum", "max", "none"):
        config = pLSTMGraphModelConfig(pooling=pooling, **common)
        yield case(f"graph_model_{pooling}", config, NUM_NODES, 5, graph=GRAPHS)
    edge = pLSTMGraphModelConfig(edge_input_dim=3, **common)
    yield case("graph_model_edges", edge, NUM_NODES, 5, graph=GRAPHS, edge_attr=(len(EDGES), 3))
    plain = pLSTMGraphModelConfig(degree_encoding=False, **{**common, "num_blocks": 1})
    yield case("graph_model_no_degrees", plain, NUM_NODES, 5, graph=GRAPHS)
