"""Residual structure around one layer, pairs of such blocks, and stacks."""

from abc import abstractmethod
from dataclasses import field
from math import ceil
from typing import Any, ClassVar, Literal, TypeAlias, cast

from plstm_config.base import Config, Gating, ModuleConfig, frozen, require, require_divisible, require_positive
from plstm_config.checks import Kind
from plstm_config.initializers import InitConfig, SmallInitConfig, ZerosInitConfig
from plstm_config.linear import LinearConfig
from plstm_config.norms import NormConfig, RMSNormConfig, require_axis
from plstm_config.parameters import Child, Repeated
from plstm_config.plstm_1d import pLSTM1DLayerConfig
from plstm_config.plstm_2d import pLSTM2DLayerConfig, pLSTM2DLayerFusedConfig
from plstm_config.plstm_graph import pLSTMGraphEdgeLayerConfig, pLSTMGraphLayerConfig
from plstm_config.pointwise import DropPathConfig, ScaleLayerConfig

LayerConfig: TypeAlias = (
    pLSTM1DLayerConfig
    | pLSTM2DLayerFusedConfig
    | pLSTM2DLayerConfig
    | pLSTMGraphLayerConfig
    | pLSTMGraphEdgeLayerConfig
)
_DEFAULT_HEADS = 4
_WIDEST = 2**62  # a bound that floats can be compared with


@frozen
class ResidualModuleConfig(ModuleConfig):
    """A module whose output has the width of its input."""

    def _check(self) -> None:
        same = self.output_dim == self.input_dim
        require(
            same, f"output_dim: expected input_dim={self.input_dim}, a residual keeps its width, got {self.output_dim}"
        )


@frozen
class ProjectionBlockConfig(ResidualModuleConfig):
    """What blocks with an up- and a down-projection share.

    Attributes:
        bias: whether the block's linear layers have biases.
        skip: whether there is a residual; without it no drop path and no scale.
        projection_scaling: inner width over outer width.
        projection_round: the inner width is rounded up to a multiple of this.
        gated: project to twice the inner width; one half gates the other.
        gating_function: gate, or activation if not gated.
        norm: none: RMS norm.
    """

    upproj_weight_init: InitConfig = field(default_factory=SmallInitConfig)
    downproj_weight_init: InitConfig = field(default_factory=SmallInitConfig)
    upproj_bias_init: InitConfig = field(default_factory=ZerosInitConfig)
    downproj_bias_init: InitConfig = field(default_factory=ZerosInitConfig)
    bias: bool = True
    skip: bool = True
    projection_scaling: float = 4
    projection_round: int = 64
    gated: bool = False
    norm: NormConfig | None = None

    @property
    def inner_dim(self) -> int:
        """Width between the projections."""
        wide = self.projection_scaling * self.input_dim
        return ceil(wide / self.projection_round) * self.projection_round

    def _complete(self) -> None:
        super()._complete()
        require_positive(self, "projection_round")
        countable = 0 < self.projection_scaling * max(1, self.input_dim) < _WIDEST
        require(
            countable,
            f"projection_scaling: expected a positive number that gives a width, got {self.projection_scaling}",
        )
        if self.input_dim >= 1:
            norm = self._child("norm", RMSNormConfig, {"input_dim": self.input_dim}, self._types())
            require_axis("norm", norm, None)

    def _interaction(self, width: int, defaults: dict[str, Any]) -> None:
        layer = self._child("interaction_module", pLSTM1DLayerConfig, {"input_dim": width}, defaults | self._types())
        same = layer.output_dim == width
        require(same, f"interaction_module.output_dim: expected {width}, the width it works on, got {layer.output_dim}")

    def _linear_maps(self) -> dict[str, Child]:
        """`upproj`, twice as wide with a gate, and `downproj`."""
        inner = self.inner_dim
        return {
            "upproj": self._linear("upproj", "FD", self.input_dim, 2 * inner if self.gated else inner),
            "downproj": self._linear("downproj", "DF", inner, self.input_dim),
        }

    def _linear(self, name: str, axes: str, input_dim: int, output_dim: int, **inits: InitConfig) -> LinearConfig:
        """A linear map with the initialisers of `upproj` or `downproj`, unless told."""
        defaults = {f"{part}_init": getattr(self, f"{name}_{part}_init") for part in ("weight", "bias")}
        sizes: dict[str, Any] = {"input_dim": input_dim, "output_dim": output_dim, "axes": tuple(axes)}
        return LinearConfig(bias=self.bias, **sizes, **(defaults | inits), **self._types())


@frozen
class PreUpProjectionBlockConfig(ProjectionBlockConfig):
    """x + downproj(interaction(upproj(norm(x))) * silu(gate)).

    Attributes:
        interaction_module: layer at the inner width; None: a sequence layer with 4 heads.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.PreUpProjectionBlockConfig(input_dim=16, projection_scaling=2.0)
        >>> config.interaction_module.input_dim
        64
    """

    class_name: str = field(init=False, default="PreUpProjectionBlock")
    projection_scaling: float = 2.0
    gated: bool = True
    gating_function: Literal["silu"] = "silu"
    interaction_module: LayerConfig | None = None

    def _complete(self) -> None:
        super()._complete()
        if self.input_dim < 1:
            return
        auto = {"num_heads": _DEFAULT_HEADS, "sub_heads": self.inner_dim // _DEFAULT_HEADS, "outprojection": False}
        self._interaction(self.inner_dim, auto)

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """That of the layer within."""
        return "any" if self.interaction_module is None else self.interaction_module.kind

    def children(self) -> dict[str, Child]:
        """Norm, projections, and the interaction between them."""
        maps = self._linear_maps()
        return {
            "norm": self.norm,
            "upproj": maps["upproj"],
            "interaction_module": self.interaction_module,
            "downproj": maps["downproj"],
        }


@frozen
class ResidualPairConfig(ProjectionBlockConfig):
    """What blocks with two residual branches share, the second of them feed-forward.

    Attributes:
        drop_path_rate: probability to drop a branch of a sample in training.
        scale: of both branches, per channel; without a skip connection there is none.
    """

    gating_function: Gating = "gelu"
    drop_path_rate: float = 0.0
    scale: ScaleLayerConfig | None = None

    def _complete(self) -> None:
        super()._complete()
        _check_rate(self.drop_path_rate)

    @property
    def branch_scale(self) -> ScaleLayerConfig | None:
        """The scale of a branch; without the skip connection it would be a parameter that no output depends on."""
        return self.scale if self.skip else None

    def children(self) -> dict[str, Child]:
        """Norms, feed-forward part, its scale and the drop path; blocks add the part that mixes positions."""
        shared: dict[str, Child] = {"norm": self.norm, "norm2": self.norm, **self._linear_maps()}
        return {**shared, "scale2": self.branch_scale, "drop_path": DropPathConfig(drop_prob=self.drop_path_rate)}


@frozen
class PostUpProjectionBlockConfig(ResidualPairConfig):
    """x2 = x + interaction(norm(x)); x2 + downproj(act(upproj(norm2(x2)))).

    Attributes:
        interaction_module: layer; None: a sequence layer with 4 heads.
        use_scale: scale each branch per channel.

    Examples:
        >>> import plstm_config
        >>> layer = plstm_config.pLSTM1DLayerConfig(num_heads=2)
        >>> plstm_config.PostUpProjectionBlockConfig(input_dim=16, interaction_module=layer).interaction_module.DK
        8
    """

    class_name: str = field(init=False, default="PostUpProjectionBlock")
    interaction_module: LayerConfig | None = None
    use_scale: bool = False

    def _complete(self) -> None:
        super()._complete()
        if self.input_dim < 1:
            return
        self._interaction(self.input_dim, {"num_heads": _DEFAULT_HEADS})
        if self.use_scale:
            self._child("scale", ScaleLayerConfig, {"input_dim": self.input_dim}, self._types())
        else:
            require(self.scale is None, "scale: expected None, since use_scale=False, got a config")

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """That of the layer within."""
        return "any" if self.interaction_module is None else self.interaction_module.kind

    def children(self) -> dict[str, Child]:
        """Those of both branches and the interaction."""
        return {**super().children(), "scale1": self.branch_scale, "interaction_module": self.interaction_module}


@frozen
class TransformerBlockConfig(ResidualPairConfig):
    """Softmax attention over all positions, then a feed-forward part: the baseline."""

    class_name: str = field(init=False, default="TransformerBlock")
    num_heads: int = 1
    attn_weight_init: InitConfig = field(default_factory=SmallInitConfig)
    out_weight_init: InitConfig = field(default_factory=SmallInitConfig)

    def _complete(self) -> None:
        super()._complete()
        require_positive(self, "num_heads")
        if self.input_dim < 1:
            return
        require_divisible(self, "input_dim", "num_heads")
        self._child("scale", ScaleLayerConfig, {"input_dim": self.input_dim}, self._types())

    def children(self) -> dict[str, Child]:
        """Those of both branches, and the linear maps of the attention."""
        width = self.input_dim
        return {
            **super().children(),
            "scale": self.branch_scale,
            "qkv": self._linear("upproj", "HD", width, 3 * width, weight_init=self.attn_weight_init),
            "outproj": self._linear("downproj", "DH", width, width, weight_init=self.out_weight_init),
        }


ProjectionBlock: TypeAlias = PreUpProjectionBlockConfig | PostUpProjectionBlockConfig
BlockMode = Literal["PD", "DP", "PP", "DD"]


@frozen
class PairBlockConfig(ResidualModuleConfig):
    """Two blocks in a row, each with its own mode.

    Attributes:
        num_heads: heads of layers that are made here; of those that are given, where all have as many.
        block_type: of blocks that are made here; of those that are given, where both have one.
        block_mode: modes of block0 and block1.
    """

    num_heads: int = 8
    block_type: Literal["pre_up", "post_up"] = "post_up"
    block_mode: BlockMode = "PD"
    block0: ProjectionBlock | None = None
    block1: ProjectionBlock | None = None

    @abstractmethod
    def _layer(self, mode: Any, structure: dict[str, Any]) -> LayerConfig:
        """Make the layer of one block."""

    def _complete(self) -> None:
        super()._complete()
        require_positive(self, "num_heads")
        if self.input_dim < 1:
            return
        for name, mode in zip(("block0", "block1"), self.block_mode, strict=True):
            self._block(name, mode)
        blocks = (self.block0, self.block1)
        self._follow("num_heads", [heads for block in blocks for heads in heads_of(block)])
        self._follow("block_type", [block_type_of(block) for block in blocks])

    def children(self) -> dict[str, Child]:
        """Both blocks."""
        require_positive(self, "input_dim")
        return {"block0": self.block0, "block1": self.block1}

    def _block(self, name: str, mode: str) -> None:
        kind = PreUpProjectionBlockConfig if self.block_type == "pre_up" else PostUpProjectionBlockConfig
        types = self._types()
        layer = self._layer(mode, dict(types))
        block = {"input_dim": self.input_dim, "interaction_module": layer, **types}
        made: Any = self._made_here(name, "interaction_module", kind, **block)
        auto = {**types, "interaction_module": made.interaction_module if made else None}
        self._child(name, kind, {"input_dim": self.input_dim}, auto)
        actual = getattr(getattr(self, name).interaction_module, "mode", None)
        require(
            actual == mode,
            f"{name}.interaction_module.mode: expected {mode!r} by block_mode={self.block_mode!r}, got {actual!r}",
        )


@frozen
class pLSTMVisionBlockConfig(PairBlockConfig):
    """A pair of blocks on grids, by default a P and a D block.

    Attributes:
        drop_path_rate: probability to drop the pair for a sample in training.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.pLSTMVisionBlockConfig(input_dim=16, num_heads=2, block_mode="PD")
        >>> config.block0.interaction_module.mode, config.block1.interaction_module.mode
        ('P', 'D')
    """

    kind: ClassVar[Kind] = "grid"
    class_name: str = field(init=False, default="pLSTMVisionBlock")
    drop_path_rate: float = 0.0

    def _layer(self, mode: Any, structure: dict[str, Any]) -> LayerConfig:
        outprojection = self.block_type == "post_up"
        return pLSTM2DLayerFusedConfig(mode=mode, num_heads=self.num_heads, outprojection=outprojection, **structure)

    def _check(self) -> None:
        super()._check()
        _check_rate(self.drop_path_rate)

    def children(self) -> dict[str, Child]:
        """Both blocks, and the drop path of the pair."""
        return {**super().children(), "drop_path": DropPathConfig(drop_prob=self.drop_path_rate)}


@frozen
class pLSTMGraphBlockConfig(PairBlockConfig):
    """A pair of blocks on graphs with gates from node features.

    Attributes:
        max_edges: slots for the edges of a node.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.pLSTMGraphBlockConfig(input_dim=16, num_heads=2, max_edges=4)
        >>> config.block0.interaction_module.max_edges
        4
    """

    kind: ClassVar[Kind] = "graph"
    class_name: str = field(init=False, default="pLSTMGraphBlock")
    max_edges: int = -1

    def _layer(self, mode: Any, structure: dict[str, Any]) -> LayerConfig:
        return pLSTMGraphLayerConfig(mode=mode, num_heads=self.num_heads, max_edges=self.max_edges, **structure)


@frozen
class pLSTMGraphEdgeBlockConfig(PairBlockConfig):
    """A pair of blocks on graphs with gates from edge features.

    Attributes:
        edge_input_dim: features of an edge.
    """

    kind: ClassVar[Kind] = "graph"
    class_name: str = field(init=False, default="pLSTMGraphEdgeBlock")
    edge_input_dim: int = -1

    def _layer(self, mode: Any, structure: dict[str, Any]) -> LayerConfig:
        edge: dict[str, Any] = {"edge_input_dim": self.edge_input_dim}
        return pLSTMGraphEdgeLayerConfig(mode=mode, num_heads=self.num_heads, **edge, **structure)


BlockConfig: TypeAlias = (
    PreUpProjectionBlockConfig
    | PostUpProjectionBlockConfig
    | TransformerBlockConfig
    | pLSTMVisionBlockConfig
    | pLSTMGraphBlockConfig
    | pLSTMGraphEdgeBlockConfig
)


@frozen
class BlockStackConfig(ResidualModuleConfig):
    """`num_blocks` equal blocks in a row.

    Attributes:
        block: one block; None: a pre-up-projection block.
        scan_blocks: let backends with a compiler scan over the blocks; no effect on the output.

    Examples:
        >>> import plstm_config
        >>> block = plstm_config.PreUpProjectionBlockConfig()
        >>> stack = plstm_config.BlockStackConfig(input_dim=16, num_blocks=3, block=block)
        >>> stack.block.input_dim  # what follows is filled in
        16
    """

    class_name: str = field(init=False, default="BlockStack")
    block: BlockConfig | None = None
    scan_blocks: bool = False
    num_blocks: int = -1

    def _complete(self) -> None:
        super()._complete()
        if self.input_dim < 1:
            return
        width = {"input_dim": self.input_dim}
        self._child("block", PreUpProjectionBlockConfig, width, self._types())

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """That of the blocks."""
        return "any" if self.block is None else self.block.kind

    def children(self) -> dict[str, Child]:
        """`blocks.0` to `blocks.<num_blocks - 1>`."""
        require(self.num_blocks >= 1, f"num_blocks: expected an integer >= 1, got {self.num_blocks}")
        return {"blocks": Repeated(cast(Config, self.block), self.num_blocks)}

    def _check(self) -> None:
        super()._check()
        valid = self.num_blocks == -1 or self.num_blocks >= 1
        require(valid, f"num_blocks: expected an integer >= 1, got {self.num_blocks}")


def heads_of(block: Any) -> list[int]:
    """The numbers of heads that the layers of a block, or of a pair of blocks, have."""
    if isinstance(block, PairBlockConfig):
        return [heads for one in (block.block0, block.block1) for heads in heads_of(one)]
    heads = getattr(getattr(block, "interaction_module", block), "num_heads", None)
    return [] if heads is None else [heads]


def block_type_of(block: Any) -> str:
    """By which name of a `block_type` a block would be made."""
    return "pre_up" if isinstance(block, PreUpProjectionBlockConfig) else "post_up"


def _check_rate(rate: float) -> None:
    require(0 <= rate < 1, f"drop_path_rate: expected 0 <= drop_path_rate < 1, got {rate}")
