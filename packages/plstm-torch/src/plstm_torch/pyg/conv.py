"""A pLSTM layer with the signature of a convolution of PyTorch Geometric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from plstm_config import parameter_tree, pLSTMGraphEdgeLayerConfig, pLSTMGraphLayerConfig
from plstm_config.topology import DagTopology, Mode
from plstm_torch.arrays import index_array
from plstm_torch.build import build
from plstm_torch.module import Module
from plstm_torch.uninitialized import Uninitialized, is_uninitialized


class pLSTMConv(nn.Module):
    """A pLSTM layer in place of a convolution; edges keep their direction, an undirected list has to be said so.

    Unlike in a convolution, one layer reaches along whole directed paths. It is no `MessagePassing`: a node hears of
    more than its neighbours, so `to_hetero` has nothing to repeat for each type of edges, and the layer refuses its
    tuples. A graph with types of nodes and edges serves as `HeteroData.to_homogeneous()`, the types as features.

    With `edge_dim` the gates of an edge are made from its ends and its features, and a node may have any number of
    edges; `edge_dim=0` does so without features. With None a node has a gate for each of up to `max_edges` edges, told
    apart by the numbers of the nodes at their other ends: transitions take heads * max_edges**2 * in_channels weights.

    Parameters: those of `pLSTMGraphEdge`, or of `pLSTMGraph` where `edge_dim` is None.

    Args:
        in_channels: features of a node; -1: as many as the first input has. Until then the parameters have no shape.
        out_channels: features that come out.
        heads: number of heads.
        edge_dim: features of an edge; 0: none, and nodes may have any number of edges; None: none, edges have slots.
        mode: "P" directed propagation or "D" diffusive distribution.
        max_edges: largest in- or out-degree where `edge_dim` is None.
        undirected: as in `directed_topology`.
        reverse: run against the direction of the edges.
        **options: further fields of the layer's config.

    Raises:
        TypeError: if `in_channels` is no integer, or there is no such option.
        ValueError: if a number is out of range.

    Examples:
        >>> import torch
        >>> from plstm_torch.pyg import pLSTMConv
        >>> conv = pLSTMConv(-1, 8, heads=2, edge_dim=0)
        >>> conv(torch.rand(3, 4), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([3, 8])
        >>> conv
        pLSTMConv(4, 8, heads=2)
    """

    layer: Module | Uninitialized

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        *,
        edge_dim: int | None = None,
        mode: Mode = "P",
        max_edges: int = 16,
        undirected: bool = False,
        reverse: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        _check_channels(in_channels)
        self.in_channels, self.out_channels, self.heads, self.edge_dim = in_channels, out_channels, heads, edge_dim
        self.mode: Mode = mode
        self.undirected, self.reverse = undirected, reverse
        own = {"max_edges": max_edges} if edge_dim is None else {"edge_input_dim": edge_dim}
        _check_options(options, self._config_class(), {"input_dim", "output_dim", "num_heads", "mode", *own})
        self._fields = {"output_dim": out_channels, "num_heads": heads, "mode": mode, **own, **options}
        if in_channels == -1:
            self.layer = Uninitialized(self._config(heads))
        else:
            self.layer = cast(Module, build(self._config(in_channels)))
        self.register_load_state_dict_pre_hook(_take_shape)

    def _config_class(self) -> type[pLSTMGraphLayerConfig] | type[pLSTMGraphEdgeLayerConfig]:
        return pLSTMGraphLayerConfig if self.edge_dim is None else pLSTMGraphEdgeLayerConfig

    def _config(self, in_channels: int) -> pLSTMGraphLayerConfig | pLSTMGraphEdgeLayerConfig:
        return self._config_class()(input_dim=in_channels, **self._fields)

    def _materialize(self, in_channels: int, *, drawn: bool = True) -> None:
        if isinstance(self.layer, Uninitialized):
            self.layer = self.layer.materialize(self._config(in_channels), drawn=drawn)
            self.in_channels = in_channels

    def reset_parameters(self) -> None:
        """Draw all parameters anew; those that have no shape yet stay without."""
        if isinstance(self.layer, Module):
            self.layer.reset_parameters()

    def __repr__(self) -> str:
        """Name the layer as PyTorch Geometric's convolutions name themselves, one line each."""
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"

    def forward(
        self,
        x: Float[Tensor, "N Dx"],
        edge_index: Int[Tensor, "2 E"] | DagTopology,
        edge_attr: Float[Tensor, "E De"] | None = None,
        batch: Int[Tensor, " N"] | None = None,
    ) -> Float[Tensor, "N D"]:
        """Run the layer.

        Args:
            x: node features [N, in_channels].
            edge_index: tails and heads [2, E], read anew at every call, or a topology made once.
            edge_attr: edge features [E, edge_dim] in the order of `edge_index`.
            batch: graph of each node [N], not decreasing, as in a `Batch`; None: all are one graph. It decides how the
                op is computed, never the result.

        Returns:
            Node features [N, out_channels].

        Raises:
            TypeError: if an argument has the wrong type.
            ValueError: if sizes do not fit, `batch` decreases, a node has more edges than `max_edges`, or the edges
                hold a self loop, a cycle, or both directions of an edge without `undirected`.
        """
        _check_nodes(x)
        _check_edge_index(edge_index)
        if isinstance(edge_index, DagTopology):
            topology = edge_index.with_mode(self.mode)
        else:
            topology = DagTopology.from_edge_index(
                x.shape[0],
                index_array("edge_index", edge_index),
                self.mode,
                undirected=self.undirected,
                node_ptr=_bounds(batch, x.shape[0]),
            )
        self._materialize(x.shape[1])
        return self.layer(x, topology.reverse() if self.reverse else topology, edge_attr)


def _check_channels(in_channels: Any) -> None:
    if isinstance(in_channels, bool) or not isinstance(in_channels, int | np.integer):
        kinds = "; source and target nodes are the same" if isinstance(in_channels, tuple) else ""
        raise TypeError(
            f"in_channels: expected an integer >= 1, or -1 for the first input's, got {in_channels!r}{kinds}"
        )
    if in_channels < 1 and in_channels != -1:
        raise ValueError(f"in_channels: expected an integer >= 1, or -1 for the first input's, got {in_channels}")


def _check_options(options: Mapping[str, Any], config: type, said: set[str]) -> None:
    """Refuse options that are no fields of the config, or are said by arguments of their own."""
    valid = [field.name for field in fields(config) if field.init and field.name not in said]
    for name in options:
        if name not in valid:
            raise TypeError(f"{name}: expected an argument of pLSTMConv or one of {valid}, got an unknown one")


def _check_edge_index(edge_index: Any) -> None:
    if isinstance(edge_index, Tensor) and edge_index.layout != torch.strided:
        raise TypeError(
            f"edge_index: expected a dense tensor with values, [2,E], got one with layout {edge_index.layout}; "
            "torch_geometric.utils.to_edge_index(adj_t.t()) makes it of a transposed adjacency matrix"
        )


def _check_nodes(x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"x: expected a tensor [N,D] of one set of nodes, got {type(x).__name__}; a pLSTM runs along paths, not "
            "from one set of nodes to another: make a graph with types by HeteroData.to_homogeneous(), not to_hetero"
        )
    if x.ndim != 2:
        raise ValueError(f"x: expected [N,D], got {tuple(x.shape)}")


def _take_shape(conv: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give a layer that waits for its first input the width of loaded weights, and draw what is missing of them."""
    shape = _shape(state.get(f"{prefix}layer.query.weight"))
    if isinstance(conv.layer, Uninitialized) and shape is not None and len(shape) == 2:
        parameters = parameter_tree(conv._config(shape[1])).items()
        complete = all(_shape(state.get(f"{prefix}layer.{name}")) == parameter.shape for name, parameter in parameters)
        conv._materialize(shape[1], drawn=not complete)


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) and not is_uninitialized(value) else None


def _bounds(batch: Tensor | None, num_nodes: int) -> Any:
    """First node of every graph, and N."""
    if batch is None:
        return None
    if not isinstance(batch, Tensor) or batch.is_floating_point() or batch.dtype == torch.bool:
        raise TypeError(f"batch: expected a tensor of integers, got {getattr(batch, 'dtype', type(batch).__name__)}")
    if batch.shape != (num_nodes,):
        raise ValueError(f"batch: expected [N={num_nodes}], got {tuple(batch.shape)}")
    if (batch.diff() < 0).any():
        raise ValueError(f"batch: expected graph numbers that do not decrease, got {batch.tolist()[:8]}")
    sizes = batch.unique_consecutive(return_counts=True)[1]
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).cpu().numpy()
