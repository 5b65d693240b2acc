"""Residual blocks around layers, the transformer baseline, and stacks of blocks."""

from __future__ import annotations

from typing import Any

from plstm_nnx.module import Module


class PreUpProjectionBlock(Module):
    """A layer between an up- and a down-projection: `norm`, `upproj`, `interaction_module`, `downproj`."""


class PostUpProjectionBlock(Module):
    """A layer, then an MLP: `norm`, `interaction_module`, `norm2`, `upproj`, `downproj`, each branch with its scale."""


class TransformerBlock(Module):
    """The baseline: attention over all positions, then an MLP."""


class pLSTMVisionBlock(Module):
    """A directed and a diffusive block on a grid, `block0` and `block1`."""


class pLSTMGraphBlock(Module):
    """The same pair on a graph."""


class pLSTMGraphEdgeBlock(Module):
    """The pair on a graph whose edges have features."""


class BlockStack(Module):
    """Equal blocks one after the other, `blocks`: a list, or one module for all of them, see `Module`."""

    remat: bool

    def __init__(self, config: Any, *, scan_blocks: bool | None = None, remat: bool = False, **options: Any) -> None:
        scan = config.scan_blocks if scan_blocks is None else scan_blocks
        super().__init__(config, scan_blocks=scan, remat=remat, **options)
        self.remat = remat
