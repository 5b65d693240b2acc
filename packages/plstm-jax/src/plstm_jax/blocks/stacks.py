"""Blocks one after the other: pairs of modes, and stacks."""

from __future__ import annotations

from jax import Array

from plstm_config import (
    BlockStackConfig,
    pLSTMGraphBlockConfig,
    pLSTMGraphEdgeBlockConfig,
    pLSTMVisionBlockConfig,
)
from plstm_jax.context import Context
from plstm_jax.formulas import Result, Scope, register


@register(pLSTMVisionBlockConfig)
def vision_block(config: pLSTMVisionBlockConfig, scope: Scope, x: Array, context: Context) -> Result:
    r"""Two blocks in sequence, `block_mode` "PD" or "DP".

    .. math:: y = x + \mathrm{drop\_path}(\mathrm{block}_1(\mathrm{block}_0(x)) - x)

    Drop path skips the pair as a whole, in training only.

    Args:
        config: complete config.
        scope: holds `block0`, `block1`.
        x: grid [B, X, Y, D].
        context: whether paths are dropped.

    Returns:
        The shape and dtype of x.
    """
    y, _ = _pair(scope, x, context)
    if context.training and config.drop_path_rate > 0.0:
        y = x + scope.call("drop_path", y - x, context)[0]
    return y, {}


@register(pLSTMGraphBlockConfig)
@register(pLSTMGraphEdgeBlockConfig)
def graph_block(
    config: pLSTMGraphBlockConfig | pLSTMGraphEdgeBlockConfig, scope: Scope, x: Array, context: Context
) -> Result:
    """Two blocks in sequence, `block_mode` "PD" or "DP", with gates from node features, or from those of edges, too.

    Args:
        config: complete config.
        scope: holds `block0`, `block1`.
        x: node features [N, D].
        context: the graph, of either mode: each block takes its own from it; and the features of its edges.

    Returns:
        [N, D] in the dtype of x.
    """
    return _pair(scope, x, context)


def _pair(scope: Scope, x: Array, context: Context) -> Result:
    for name in ("block0", "block1"):
        x, _ = scope.call(name, x, context)
    return x, {}


@register(BlockStackConfig)
def block_stack(config: BlockStackConfig, scope: Scope, x: Array, context: Context) -> Result:
    """`num_blocks` blocks of one config, each with its own parameters.

    Args:
        config: complete config.
        scope: holds `blocks.0`, `blocks.1`, ....
        x: of any shape that the blocks take.
        context: what they take beside.

    Returns:
        The output of the last block, and the caches of all by their numbers.
    """
    contexts = [context.of(str(index)) for index in range(config.num_blocks)]
    x, caches = scope.repeat("blocks", x, contexts, scan=config.scan_blocks)
    return x, {str(index): cache for index, cache in enumerate(caches)}
