"""Whole models: tokens, images and graphs to logits."""

import numpy as np

from plstm_config import pLSTMGraphModelConfig, pLSTMLMModelConfig, pLSTMVisionModelConfig
from plstm_config.models import is_sequential

from ._blocks import run_block
from ._contractions import Array
from ._embeddings import pool_grid, pool_nodes
from ._layers_graph import as_topology
from ._modules import Cache, Context, Module, mixing, pointwise


@mixing(pLSTMLMModelConfig)
def language_model(module: Module, tokens: Array, context: Context) -> tuple[Array, Cache]:
    """Embedding, blocks, norm, head (the embedding's table where tied), soft cap."""
    hidden = module.part("token_embedding")(tokens)
    hidden, cache = module.run_part("block_stack", hidden, context)
    hidden = module.part("post_blocks_norm")(hidden)
    head = "token_embedding.weight" if module.config.tie_weights else "lm_head.weight"
    return module.apply_part("logit_soft_cap", hidden @ module[head].T), cache


@pointwise(pLSTMVisionModelConfig)
def vision_model(module: Module, pixels: Array) -> Array:
    """Patches, positions, blocks, norm, pooling, head, soft cap.

    Blocks on sequences see the patches row by row; the class token stands in front of them.
    """
    pooling = module.config.pooling
    grid = module.apply_part("pos_embed", module.part("patch_embed")(pixels))
    if pooling == "cls":
        token = np.broadcast_to(module["cls_token"], (len(grid), 1, grid.shape[-1]))
        features = _encode(module, np.concatenate([token, _flat(grid)], axis=1))
        pooled = features[:, 0]
    elif is_sequential(module.config.block_stack.block):
        pooled = pool_grid(_encode(module, _flat(grid)).reshape(grid.shape), pooling)
    else:
        pooled = pool_grid(_encode(module, grid), pooling)
    return module.apply_part("logit_softcap", module.apply_part("head", pooled))


@mixing(pLSTMGraphModelConfig)
def graph_model(module: Module, x: Array, context: Context) -> tuple[Array, Cache]:
    """Encoder and degrees, blocks along and against the edges in turn, norm, pooling, head."""
    topology = as_topology(context.graph, len(x), "P")
    hidden = module.part("encoder")(x)
    if module.has("degree_encoding"):
        hidden = hidden + _degrees(module, topology.edges, len(x))
    stack, directions = module.part("block_stack"), (topology, topology.reverse())
    for index in range(stack.config.num_blocks):
        hidden, _ = run_block(stack, index, hidden, Context(None, directions[index % 2], context.edge_attr))
    hidden = module.part("norm")(hidden)
    if module.config.pooling != "none":
        graphs = len(topology.node_ptr) - 1
        owner = np.repeat(np.arange(graphs), np.diff(topology.node_ptr))
        hidden = pool_nodes(hidden, owner, graphs, module.config.pooling)
    return module.part("head")(hidden), {}


def _flat(grid: Array) -> Array:
    return grid.reshape(grid.shape[0], grid.shape[1] * grid.shape[2], grid.shape[3])


def _encode(module: Module, x: Array) -> Array:
    encoded, _ = module.part("block_stack").run(x, Context())
    return module.part("norm")(encoded)


def _degrees(module: Module, edges: Array, nodes: int) -> Array:
    """Embeddings of how many edges enter and leave each node; large degrees share the last row."""
    tables, total = module.part("degree_encoding"), np.zeros((nodes, module.config.dim))
    for side, name in ((1, "in_degree"), (0, "out_degree")):
        degree = np.bincount(edges[:, side], minlength=nodes)
        total += tables[name][np.minimum(degree, module.config.max_degree)]
    return total
