"""pLSTM on directed acyclic graphs."""

from dataclasses import dataclass, field
from typing import Literal

from plstm_config.base import ModuleConfig, child, require, require_positive
from plstm_config.initializers import (
    ConstantInitConfig,
    DiagonalInitConfig,
    InitConfig,
    NormalInitConfig,
    SmallInitConfig,
    ZerosInitConfig,
)
from plstm_config.norms import MultiHeadNormConfig, MultiHeadRMSNormConfig

_FEATURES_PER_HEAD = 32


def _closed() -> ConstantInitConfig:
    return ConstantInitConfig(value=-5.0)


@dataclass(kw_only=True)
class _GraphLayerConfig(ModuleConfig):
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
        if self.num_heads < 0:
            self.num_heads = max(1, self.input_dim // _FEATURES_PER_HEAD)
        require_positive(self, "num_heads")
        if self.qk_head_dim < 0:
            self.qk_head_dim = self.input_dim // self.num_heads
        if self.hv_head_dim < 0:
            self.hv_head_dim = self.output_dim // self.num_heads
        require_positive(self, "qk_head_dim", "hv_head_dim")
        width = self.num_heads * self.hv_head_dim
        require(
            self.out or width == self.output_dim,
            f"num_heads*hv_head_dim={width}: expected output_dim={self.output_dim}, since out=False",
        )
        structure = {"num_heads": self.num_heads, "input_dim": width}
        defaults = {"axis": 0, **self._types()}
        self.mhnorm = child("mhnorm", self.mhnorm, MultiHeadRMSNormConfig, structure, defaults)
        require(self.mhnorm.axis == 0, f"mhnorm.axis={self.mhnorm.axis}: expected 0, heads come first on graphs")


@dataclass(kw_only=True)
class pLSTMGraphLayerConfig(_GraphLayerConfig):
    """A pLSTM layer on graphs whose gates are made from node features, one slot for each edge of a node.

    Attributes:
        max_edges: slots: the largest in- or out-degree that the layer can serve.
        edge_slots: "own": the slot of an edge is its rank among the edges of the node that makes the gate; "swapped":
            its rank at its other end, so that two edges can share a gate, as in the research code.
    """

    class_name: str = field(init=False, default="pLSTMGraphLayer")
    max_edges: int = -1
    transition_bias_init: InitConfig = field(
        default_factory=lambda: DiagonalInitConfig(value=10.0, in_axes=-1, out_axes=-2)
    )

    edge_slots: Literal["own", "swapped"] = "own"

    def _check(self) -> None:
        require(self.max_edges == -1 or self.max_edges >= 1, f"max_edges={self.max_edges} is not positive")


@dataclass(kw_only=True)
class pLSTMGraphEdgeLayerConfig(_GraphLayerConfig):
    """A pLSTM layer on graphs whose gates are made from edge features.

    Attributes:
        edge_input_dim: features of an edge.
        transition_node: "shared": the node between the two edges; "tail": the tail of the incoming edge, as in the
            research code.
    """

    class_name: str = field(init=False, default="pLSTMGraphEdgeLayer")
    edge_input_dim: int = -1
    transition_bias_init: InitConfig = field(default_factory=lambda: NormalInitConfig(mean=0.0, stddev=10.0))
    transition_node: Literal["shared", "tail"] = "shared"

    def _check(self) -> None:
        valid = self.edge_input_dim == -1 or self.edge_input_dim >= 0
        require(valid, f"edge_input_dim={self.edge_input_dim}: expected a number >= 0")
