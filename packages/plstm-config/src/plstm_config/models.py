"""Language, vision and graph models."""

from dataclasses import field
from typing import Any, ClassVar, Literal, cast

from plstm_config.base import Config, DType, frozen, require, require_positive
from plstm_config.blocks import (
    BlockStackConfig,
    PostUpProjectionBlockConfig,
    PreUpProjectionBlockConfig,
    TransformerBlockConfig,
    block_type_of,
    heads_of,
    pLSTMGraphBlockConfig,
    pLSTMGraphEdgeBlockConfig,
    pLSTMVisionBlockConfig,
)
from plstm_config.checks import Kind
from plstm_config.embeddings import PatchEmbedConfig, PosEmbed2DConfig, TokenEmbeddingConfig
from plstm_config.initializers import InitConfig, SmallInitConfig, ZerosInitConfig
from plstm_config.linear import LinearConfig
from plstm_config.norms import NormConfig, RMSNormConfig, require_axis
from plstm_config.parameters import Child, Parameter, Weights
from plstm_config.plstm_1d import pLSTM1DLayerConfig
from plstm_config.pointwise import SoftCapFunctionConfig

Pooling = Literal["corners", "center", "cls", "mean", "sum", "to_image", "features"]


@frozen
class _ModelConfig(Config):
    num_blocks: int = 1
    dtype: DType = "float32"
    param_dtype: DType = "float32"
    block_stack: BlockStackConfig | None = None

    def _types(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    def _stack(self, width: int, kind: type[Config], **fields: Any) -> BlockStackConfig:
        """Fill a given stack, or make one of blocks; a stack that knows its number of blocks decides."""
        stack, default = self.block_stack, type(self).__dataclass_fields__["num_blocks"].default
        if isinstance(stack, BlockStackConfig) and stack.num_blocks > 0:
            agree = self.num_blocks in (default, stack.num_blocks)
            require(agree, f"num_blocks: expected block_stack.num_blocks={stack.num_blocks}, got {self.num_blocks}")
            self._set("num_blocks", stack.num_blocks)
        structure = {"input_dim": width, "num_blocks": self.num_blocks}
        block = self._made_here("block_stack", "block", kind, input_dim=width, **fields, **self._types())
        made: BlockStackConfig = self._child(
            "block_stack", BlockStackConfig, structure, {"block": block, **self._types()}
        )
        return made

    def _norm(self, name: str, width: int) -> None:
        require_axis(name, self._child(name, RMSNormConfig, {"input_dim": width}, self._types()), None)

    def _linear(self, input_dim: int, output_dim: int, axes: tuple[str, str], **more: Any) -> LinearConfig:
        return LinearConfig(input_dim=input_dim, output_dim=output_dim, axes=axes, **more, **self._types())

    def _weight(self, shape: tuple[int, ...], axes: tuple[str, ...], init: InitConfig, **more: Any) -> Parameter:
        return Parameter(shape, axes, init, self.param_dtype, **more)


@frozen
class pLSTMLMModelConfig(_ModelConfig):
    """A language model: token embedding, blocks, norm, head.

    With bidirectional layers it is an encoder: whole sequences, also packed or padded, to features or to one logit
    vector for each token; steps, caches, generation and the loss of the next token are refused.

    Attributes:
        vocab_size: number of tokens.
        embedding_dim: width.
        tie_weights: the head uses the embedding's table.
        logit_soft_cap: c * tanh(logits / c); None: no cap.
        block_type: of blocks that are made here, or given.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.pLSTMLMModelConfig(vocab_size=50, embedding_dim=16, num_blocks=2)
        >>> config.block_stack.block.class_name, plstm_config.count_parameters(config)
        ('PreUpProjectionBlock', 30000)
    """

    class_name: str = field(init=False, default="pLSTMLMModel")
    vocab_size: int = -1
    embedding_dim: int = -1
    num_blocks: int = 1
    tie_weights: bool = False
    logit_soft_cap: SoftCapFunctionConfig | None = field(default_factory=SoftCapFunctionConfig)
    block_type: Literal["pre_up", "post_up"] = "pre_up"
    embed_init: InitConfig = field(default_factory=SmallInitConfig)
    head_init: InitConfig = field(default_factory=SmallInitConfig)
    post_blocks_norm: NormConfig | None = None

    def _complete(self) -> None:
        if self.embedding_dim < 0 and isinstance(self.block_stack, BlockStackConfig):
            self._set("embedding_dim", self.block_stack.input_dim)
        require_positive(self, "vocab_size", "embedding_dim", "num_blocks")
        kind = PreUpProjectionBlockConfig if self.block_type == "pre_up" else PostUpProjectionBlockConfig
        width = self.embedding_dim
        stack = self._stack(width, kind)
        require(
            is_sequential(stack.block) and not isinstance(stack.block, TransformerBlockConfig),
            f"block_stack.block: expected a block around a sequence layer (pLSTM1DLayer), got {_called(stack.block)}",
        )
        self._follow("block_type", [block_type_of(stack.block)])
        self._norm("post_blocks_norm", width)

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """That of the blocks."""
        return cast(BlockStackConfig, self.block_stack).kind

    def children(self) -> dict[str, Child]:
        """Token table, blocks, norm, head unless tied, soft cap."""
        sizes: dict[str, Any] = {"vocab_size": self.vocab_size, "embedding_dim": self.embedding_dim}
        head = self._linear(self.embedding_dim, self.vocab_size, ("V", "D"), weight_init=self.head_init, bias=False)
        return {
            "token_embedding": TokenEmbeddingConfig(**sizes, embed_init=self.embed_init, **self._types()),
            "block_stack": self.block_stack,
            "post_blocks_norm": self.post_blocks_norm,
            "lm_head": None if self.tie_weights else head,
            "logit_soft_cap": self.logit_soft_cap,
        }


@frozen
class pLSTMVisionModelConfig(_ModelConfig):
    """A vision model: patches, positions, blocks, norm, pooling, head.

    Attributes:
        dim: width.
        patch_size: side of a patch; patches are `stride` apart, by default side by side.
        num_blocks: blocks of the stack; a pLSTMVisionBlock is a pair and counts as one.
        output_shape: (number of classes,); (0,): no head, outputs are the pooled features.
        pooling: corners, center, cls (blocks on sequences only), mean, sum, or without a head to_image, features.
        num_heads: heads of blocks that are made here; of those that are given, where all have as many.
        seqlens: grid (X, Y); None: from the resolution.
        resolution: (height, width) of the images; others divisible by the patch size work, too.
        use_pos_embed: whether there is a positional embedding.
        logit_softcap: c * tanh(logits / c); None: no cap.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.pLSTMVisionModelConfig(
        ...     dim=16, num_blocks=2, num_heads=2, resolution=(32, 48), patch_size=8, output_shape=(10,)
        ... )
        >>> config.seqlens
        (4, 6)
    """

    kind: ClassVar[Kind] = "grid"
    class_name: str = field(init=False, default="pLSTMVisionModel")
    dim: int = 128
    num_channels: int = 3
    patch_size: int = 16
    num_blocks: int = 12
    output_shape: tuple[int, ...] = (1000,)
    pooling: Pooling = "corners"
    stride: int | None = None
    num_heads: int = 8
    seqlens: tuple[int, int] | None = None
    resolution: tuple[int, int] = (224, 224)
    channels_first: bool = False
    norm: NormConfig | None = None
    patch_embed: PatchEmbedConfig | None = None
    use_pos_embed: bool = True
    pos_embed: PosEmbed2DConfig | None = None
    logit_softcap: SoftCapFunctionConfig | None = None
    head_weight_init: InitConfig = field(default_factory=SmallInitConfig)
    head_bias_init: InitConfig = field(default_factory=ZerosInitConfig)

    @property
    def head_input_dim(self) -> int:
        """Width of the pooled features."""
        return 4 * self.dim if self.pooling == "corners" else self.dim

    def _complete(self) -> None:
        require_positive(self, "dim", "num_channels", "patch_size", "num_blocks", "num_heads")
        one_size = len(self.output_shape) == 1 and self.output_shape[0] >= 0
        require(one_size, f"output_shape: expected (number of classes,), or (0,) for no head, got {self.output_shape}")
        grid = self._grid()
        require(
            self.seqlens in (None, grid), f"seqlens: expected {grid} by resolution and patch_size, got {self.seqlens}"
        )
        self._derive("seqlens", grid)
        stack = self._stack(self.dim, pLSTMVisionBlockConfig, num_heads=self.num_heads)
        self._follow("num_heads", heads_of(stack.block))
        sequential = is_sequential(stack.block)
        require(
            self.pooling != "cls" or sequential,
            "pooling: expected another one than 'cls', since blocks are on grids, got 'cls'",
        )
        self._norm("norm", self.dim)
        self._complete_embeddings(grid)

    @property
    def has_head(self) -> bool:
        """Whether there are classes, and the pooling has a head behind it."""
        return self.pooling not in ("to_image", "features") and self.output_shape[0] > 0

    def children(self) -> dict[str, Child]:
        """Patch and positional embedding, blocks, norm, head and soft cap, where there are such."""
        inits: dict[str, InitConfig] = {"weight_init": self.head_weight_init, "bias_init": self.head_bias_init}
        head = self._linear(self.head_input_dim, self.output_shape[0], ("C", "D"), **inits)
        return {
            "patch_embed": self.patch_embed,
            "pos_embed": self.pos_embed,
            "block_stack": self.block_stack,
            "norm": self.norm,
            "head": head if self.has_head else None,
            "logit_softcap": self.logit_softcap if self.has_head else None,
        }

    def parameters(self) -> dict[str, Parameter | None]:
        """With pooling "cls" `cls_token` [dim]."""
        token = self._weight((self.dim,), ("D",), self.head_weight_init, decay=False)
        return {"cls_token": token if self.pooling == "cls" else None}

    def _grid(self) -> tuple[int, int]:
        stride = self.patch_size if self.stride is None else self.stride
        require(stride >= 1, f"stride: expected an integer >= 1, got {stride}")
        for side in self.resolution:
            fits = side >= self.patch_size and (side - self.patch_size) % stride == 0
            require(fits, f"resolution: expected sides that patches of {self.patch_size} tile, got {self.resolution}")
        x, y = ((side - self.patch_size) // stride + 1 for side in self.resolution)
        return x, y

    def _complete_embeddings(self, grid: tuple[int, int]) -> None:
        patches = {
            "dim": self.dim,
            "num_channels": self.num_channels,
            "resolution": self.resolution,
            "channels_first": self.channels_first,
            "patch_size": self.patch_size,
            "stride": self.stride,
        }
        self._child("patch_embed", PatchEmbedConfig, patches, self._types())
        if self.use_pos_embed:
            positions = {"seqlens": grid, "dim": self.dim}
            self._child("pos_embed", PosEmbed2DConfig, positions, self._types())
        else:
            require(self.pos_embed is None, "pos_embed: expected None, since use_pos_embed=False, got a config")


@frozen
class pLSTMGraphModelConfig(_ModelConfig):
    """A model on directed acyclic graphs: encoder, blocks (alternating with the reversed graph), pooling, head.

    Attributes:
        input_dim: features of a node.
        edge_input_dim: features of an edge; zero: none, gates are made from nodes.
        dim: width.
        output_dim: outputs of a graph, or of a node without pooling.
        pooling: over the nodes of a graph; "none": outputs for every node.
        degree_encoding: add an embedding of in- and out-degree, up to `max_degree`.
        max_edges: slots for the edges of a node, where gates are made from nodes.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.pLSTMGraphModelConfig(input_dim=4, dim=16, output_dim=2, num_blocks=2, num_heads=2)
        >>> plstm_config.change(config, {"pooling": "sum"}).pooling
        'sum'
    """

    kind: ClassVar[Kind] = "graph"
    class_name: str = field(init=False, default="pLSTMGraphModel")
    input_dim: int = -1
    edge_input_dim: int = 0
    dim: int = 96
    output_dim: int = -1
    num_blocks: int = 2
    num_heads: int = 4
    pooling: Literal["mean", "sum", "max", "none"] = "mean"
    degree_encoding: bool = True
    max_degree: int = 16
    max_edges: int = 16
    norm: NormConfig | None = None
    encoder_init: InitConfig = field(default_factory=SmallInitConfig)
    head_weight_init: InitConfig = field(default_factory=SmallInitConfig)
    head_bias_init: InitConfig = field(default_factory=ZerosInitConfig)

    def _complete(self) -> None:
        require_positive(self, "input_dim", "dim", "output_dim", "num_blocks", "num_heads", "max_degree", "max_edges")
        require(self.edge_input_dim >= 0, f"edge_input_dim: expected a number >= 0, got {self.edge_input_dim}")
        kind, own = (
            (pLSTMGraphEdgeBlockConfig, "edge_input_dim")
            if self.edge_input_dim
            else (pLSTMGraphBlockConfig, "max_edges")
        )
        stack = self._stack(self.dim, kind, num_heads=self.num_heads, **{own: getattr(self, own)})
        on_graphs = isinstance(stack.block, pLSTMGraphBlockConfig | pLSTMGraphEdgeBlockConfig)
        expected = "a pLSTMGraphBlock or pLSTMGraphEdgeBlock"
        require(on_graphs, f"block_stack.block: expected {expected}, got {_called(stack.block)}")
        self._follow("num_heads", heads_of(stack.block))
        self._follow("edge_input_dim", [getattr(stack.block, "edge_input_dim", 0)])
        self._norm("norm", self.dim)

    def children(self) -> dict[str, Child]:
        """Encoder, tables of degrees, blocks, norm and head."""
        table = self._weight((self.max_degree + 1, self.dim), ("N", "D"), self.encoder_init)
        inits: dict[str, InitConfig] = {"weight_init": self.head_weight_init, "bias_init": self.head_bias_init}
        degrees = Weights({"in_degree": table, "out_degree": table})
        return {
            "encoder": self._linear(self.input_dim, self.dim, ("D", "F"), weight_init=self.encoder_init),
            "degree_encoding": degrees if self.degree_encoding else None,
            "block_stack": self.block_stack,
            "norm": self.norm,
            "head": self._linear(self.dim, self.output_dim, ("C", "D"), **inits),
        }


def is_sequential(block: Any) -> bool:
    """Whether a block works on sequences [B, T, D]."""
    if isinstance(block, TransformerBlockConfig):
        return True
    return isinstance(getattr(block, "interaction_module", None), pLSTM1DLayerConfig)


def _called(config: Any) -> str:
    return str(getattr(config, "class_name", type(config).__name__))
