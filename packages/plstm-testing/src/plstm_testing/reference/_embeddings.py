"""What stands at the ends of models: tokens, patches and positions come in, poolings lead out."""

import math

import numpy as np

from plstm_config import PatchEmbedConfig, PosEmbed2DConfig, TokenEmbeddingConfig

from ._contractions import Array
from ._modules import Module, pointwise

CUBIC = -0.75


@pointwise(TokenEmbeddingConfig)
def token_embedding(module: Module, tokens: Array) -> Array:
    """The rows of the table."""
    return module["weight"][tokens]


@pointwise(PatchEmbedConfig)
def patch_embed(module: Module, pixels: Array) -> Array:
    """A linear map of each patch: ``y[x,y] = b + sum over c,i,j of W[c,i,j] pixels[c, x s + i, y s + j]``."""
    config, weight, bias = module.config, module["proj.weight"], module["proj.bias"]
    if not config.channels_first:
        pixels = np.moveaxis(pixels, -1, 1)
    (height, width), (step_x, step_y) = config.patch, config.step
    columns = (pixels.shape[2] - height) // step_x + 1
    rows = (pixels.shape[3] - width) // step_y + 1
    result = np.zeros((pixels.shape[0], columns, rows, config.dim))
    for x, y in np.ndindex(columns, rows):
        patch = pixels[:, :, x * step_x : x * step_x + height, y * step_y : y * step_y + width]
        result[:, x, y] = bias + np.einsum("bcij,dcij->bd", patch, weight)
    return result


@pointwise(PosEmbed2DConfig)
def pos_embed(module: Module, x: Array) -> Array:
    """Add an embedding for every position, resampled where the grid is another one."""
    embed = module["embed"]
    for axis in (1, 2):
        if embed.shape[axis] != x.shape[axis]:
            embed = resample(embed, x.shape[axis], axis)
    return x + embed


def resample(array: Array, size: int, axis: int) -> Array:
    """Bicubic resampling along an axis, without antialiasing: entries are cells, and the borders repeat.

    Entry i of n new ones lies at ``(i + 1/2) N / n - 1/2`` among the N old ones, and weighs the two entries on each
    side by Keys' kernel with a = -3/4.
    """
    old = array.shape[axis]
    weights = np.zeros((size, old))
    for index in range(size):
        place = (index + 0.5) * old / size - 0.5
        for near in range(math.floor(place) - 1, math.floor(place) + 3):
            weights[index, min(max(near, 0), old - 1)] += _kernel(abs(place - near))
    return np.moveaxis(np.tensordot(weights, array, axes=(1, axis)), 0, axis)


def _kernel(distance: float) -> float:
    if distance <= 1:
        return (CUBIC + 2) * distance**3 - (CUBIC + 3) * distance**2 + 1
    if distance < 2:
        return CUBIC * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return 0.0


def pool_grid(grid: Array, pooling: str) -> Array:
    """From a grid [B,X,Y,D] to what the head reads, or to what comes out without a head."""
    columns, rows = grid.shape[1:3]
    if pooling == "corners":
        corners = [(0, 0), (columns - 1, 0), (0, rows - 1), (columns - 1, rows - 1)]
        return np.concatenate([grid[:, x, y] for x, y in corners], axis=-1)
    if pooling == "center":
        return grid[:, columns // 2, rows // 2]
    if pooling == "to_image":
        return np.moveaxis(grid, -1, 1)
    if pooling == "features":
        return grid
    return grid.mean(axis=(1, 2)) if pooling == "mean" else grid.sum(axis=(1, 2))


def pool_nodes(features: Array, node_graph: Array, graphs: int, pooling: str) -> Array:
    """From nodes [N,D] to graphs [G,D], zero for a graph without nodes."""
    result = np.zeros((graphs, features.shape[1]))
    for graph in range(graphs):
        nodes = features[node_graph == graph]
        if len(nodes):
            result[graph] = {"mean": nodes.mean(axis=0), "sum": nodes.sum(axis=0), "max": nodes.max(axis=0)}[pooling]
    return result
