"""From a grid of features to what the head reads."""

from jaxtyping import Float
from torch import Tensor

from plstm_config.options import unknown
from plstm_torch.dtypes import cat

GRID_POOLINGS = ("corners", "center", "mean", "sum", "to_image", "features")


def pool_grid(grid: Float[Tensor, "B X Y D"], pooling: str) -> Tensor:
    """Pool a grid of features.

    Args:
        grid: features [B, X, Y, D].
        pooling: "corners" (the four corner patches, concatenated), "center", "mean", "sum", "to_image" or
            "features".

    Returns:
        [B, 4D] for corners, [B, D] for center, mean and sum, [B, D, X, Y] for to_image, the grid for features.

    Raises:
        ValueError: unknown pooling.
    """
    if pooling == "corners":
        return cat([grid[:, 0, 0], grid[:, -1, 0], grid[:, 0, -1], grid[:, -1, -1]], dim=-1)
    if pooling == "center":
        return grid[:, grid.shape[1] // 2, grid.shape[2] // 2]
    if pooling == "mean":
        return grid.mean(dim=(1, 2))
    if pooling == "sum":
        return grid.sum(dim=(1, 2))
    if pooling == "to_image":
        return grid.permute(0, 3, 1, 2)
    if pooling == "features":
        return grid
    raise unknown("pooling", pooling, GRID_POOLINGS)
