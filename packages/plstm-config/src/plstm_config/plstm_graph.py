"""pLSTM on directed acyclic graphs."""

from abc import ABC, abstractmethod
from dataclasses import field
from typing import Any, ClassVar, Literal

from plstm_config.base import ModuleConfig, frozen, require, require_positive
from plstm_config.checks import Kind
from plstm_config.initializers import (
    ConstantInitConfig,
    DiagonalInitConfig,
    InitConfig,
    NormalInitConfig,
    SmallInitConfig,
    ZerosInitConfig,
)
from plstm_config.linear import LinearConfig
from plstm_config.norms import MultiHeadNormConfig, MultiHeadRMSNormConfig, require_axis
from plstm_config.parameters import Child

_FEATURES_PER_HEAD = 32


def _closed() -> ConstantInitConfig:
    return ConstantInitConfig(value=-5.0)


@frozen
class _GraphLayerConfig(ModuleConfig, ABC):
    """What the two graph layers share.

    Attributes:
        mode: "P" directed propagation, "D" diffusive distribution on a pruned line graph.
        num_heads: heads H; negative: one for every 32 features.
        qk_head_dim: query and key dimension of a head; negative: input_dim // num_heads.
        hv_head_dim: value dimension of a head; negative: output_dim // num_heads.
        bias: whether query, key, value and output have biases.
        pmode_normalization: "outgoing" edges of the same incoming edge (paper eq. 9), or "incoming" as in the research
            code.
        out: whether the heads' outputs are projected.
        implementation: of the op; "auto" chooses.
    """

    mode: Literal["D", "P"] = "P"
    num_heads: int = -1
    qk_head_dim: int = -1
    hv_head_dim: int = -1
    bias: bool = False
    qkvo_bias_init: InitConfig = field(default_factory=ZerosInitConfig)
    qkvo_weight_init: InitConfig = field(default_factory=SmallInitConfig)
    source_bias_init: InitConfig = field(default_factory=_closed)
    source_weight_init: InitConfig = field(default_factory=ZerosInitConfig)
    transition_bias_init: InitConfig = field(default_factory=ZerosInitConfig)
    transition_weight_init: InitConfig = field(default_factory=ZerosInitConfig)
    mark_bias_init: InitConfig = field(default_factory=_closed)
    mark_weight_init: InitConfig = field(default_factory=ZerosInitConfig)
    direct_bias_init: InitConfig = field(default_factory=_closed)
    direct_weight_init: InitConfig = field(default_factory=ZerosInitConfig)
    pmode_normalization: Literal["outgoing", "incoming"] = "outgoing"
    mhnorm: MultiHeadNormConfig | None = None
    out: bool = True
    implementation: Literal["auto", "recurrent", "parallel"] = "auto"

    def _complete(self) -> None:
        super()._complete()
        if self.input_dim < 1:
            return
        self._derive("num_heads", max(1, self.input_dim // _FEATURES_PER_HEAD))
        require_positive(self, "num_heads")
        self._derive("qk_head_dim", self.input_dim // self.num_heads)
        self._derive("hv_head_dim", self.output_dim // self.num_heads)
        require_positive(self, "qk_head_dim", "hv_head_dim")
        width = self.num_heads * self.hv_head_dim
        require(
            self.out or width == self.output_dim,
            f"num_heads*hv_head_dim: expected output_dim={self.output_dim}, since out=False, got {width}",
        )
        structure = {"num_heads": self.num_heads, "input_dim": width}
        norm = self._child("mhnorm", MultiHeadRMSNormConfig, structure, {"axis": 0, **self._types()})
        require_axis("mhnorm", norm, 0)

    @property
    @abstractmethod
    def gate_dims(self) -> dict[str, tuple[int, int]]:
        """Input and output width of the linear maps `source`, `transition`, `mark` and `direct`."""

    def children(self) -> dict[str, Child]:
        """Linear maps to query, key, value, gates and output, and the norm."""
        require(self.input_dim >= 1, f"input_dim: expected an integer >= 1, got {self.input_dim}")
        width, keys, values = self.input_dim, self.num_heads * self.qk_head_dim, self.num_heads * self.hv_head_dim
        return {
            "query": self._projection(width, keys),
            "key": self._projection(width, keys),
            "value_": self._projection(width, values),
            **{name: self._gate(name, *dims) for name, dims in self.gate_dims.items()},
            "mhnorm": self.mhnorm,
            "out": self._projection(values, self.output_dim, axes=("D", "H")) if self.out else None,
        }

    def _projection(self, input_dim: int, output_dim: int, **axes: Any) -> LinearConfig:
        inits: dict[str, InitConfig] = {"weight_init": self.qkvo_weight_init, "bias_init": self.qkvo_bias_init}
        return self._linear(input_dim, output_dim, bias=self.bias, **inits, **axes)

    def _gate(self, name: str, input_dim: int, output_dim: int, **more: Any) -> LinearConfig:
        inits = {f"{part}_init": getattr(self, f"{name}_{part}_init") for part in ("weight", "bias")}
        return self._linear(input_dim, output_dim, **inits, **more)

    def _linear(self, input_dim: int, output_dim: int, **more: Any) -> LinearConfig:
        more.setdefault("axes", ("H", "D"))
        return LinearConfig(input_dim=input_dim, output_dim=output_dim, **more, **self._types())


@frozen
class pLSTMGraphLayerConfig(_GraphLayerConfig):
    """A pLSTM layer on graphs whose gates are made from node features, one slot for each edge of a node.

    Attributes:
        max_edges: slots: the largest in- or out-degree that the layer can serve.
        edge_slots: "own": the slot of an edge is its rank among the edges of the node that makes the gate; "swapped":
            its rank at its other end, so that two edges can share a gate, as in the research code.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.pLSTMGraphLayerConfig(input_dim=16, num_heads=2, max_edges=3)
        >>> plstm_config.parameter_tree(config)["transition.weight"].shape  # H * max_edges**2 gates of each node
        (18, 16)
    """

    kind: ClassVar[Kind] = "graph"
    class_name: str = field(init=False, default="pLSTMGraphLayer")
    max_edges: int = -1
    transition_bias_init: InitConfig = field(
        default_factory=lambda: DiagonalInitConfig(value=10.0, in_axes=-1, out_axes=-2)
    )

    edge_slots: Literal["own", "swapped"] = "own"

    def _check(self) -> None:
        require(
            self.max_edges == -1 or self.max_edges >= 1, f"max_edges: expected an integer >= 1, got {self.max_edges}"
        )

    @property
    def gate_dims(self) -> dict[str, tuple[int, int]]:
        """One gate for every head and slot of a node; the transition has a pair of slots."""
        require(self.max_edges >= 1, f"max_edges: expected an integer >= 1, got {self.max_edges}")
        width, heads, slots = self.input_dim, self.num_heads, self.max_edges
        sizes = {"source": heads * slots, "transition": heads * slots**2, "mark": heads * slots, "direct": heads}
        return {name: (width, size) for name, size in sizes.items()}

    def _gate(self, name: str, input_dim: int, output_dim: int, **more: Any) -> LinearConfig:
        if name == "transition":  # its start joins slots of the same rank
            more["bias_view"] = (self.num_heads, self.max_edges, self.max_edges)
        return super()._gate(name, input_dim, output_dim, **more)


@frozen
class pLSTMGraphEdgeLayerConfig(_GraphLayerConfig):
    """A pLSTM layer on graphs whose gates are made from edge features.

    Attributes:
        edge_input_dim: features of an edge.
        transition_node: "shared": the node between the two edges; "tail": the tail of the incoming edge, as in the
            research code.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.pLSTMGraphEdgeLayerConfig(input_dim=16, num_heads=2, edge_input_dim=5)
        >>> plstm_config.parameter_tree(config)["source.weight"].shape
        (2, 21)
    """

    kind: ClassVar[Kind] = "graph"
    class_name: str = field(init=False, default="pLSTMGraphEdgeLayer")
    edge_input_dim: int = -1
    transition_bias_init: InitConfig = field(default_factory=lambda: NormalInitConfig(mean=0.0, stddev=10.0))
    transition_node: Literal["shared", "tail"] = "shared"

    def _check(self) -> None:
        valid = self.edge_input_dim == -1 or self.edge_input_dim >= 0
        require(valid, f"edge_input_dim: expected a number >= 0, got {self.edge_input_dim}")

    @property
    def gate_dims(self) -> dict[str, tuple[int, int]]:
        """One gate for every head; features of nodes and edges are concatenated."""
        require(self.edge_input_dim >= 0, f"edge_input_dim: expected an integer >= 0, got {self.edge_input_dim}")
        node, edge, heads = self.input_dim, self.edge_input_dim, self.num_heads
        widths = {"source": node + edge, "transition": 2 * edge + node, "mark": node + edge, "direct": node}
        return {name: (width, heads) for name, width in widths.items()}
