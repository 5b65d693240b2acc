"""What models begin with: tokens, patches and their places."""

from dataclasses import field

from plstm_config.base import Config, DType, frozen, require, require_positive
from plstm_config.initializers import InitConfig, SmallInitConfig, ZerosInitConfig
from plstm_config.parameters import Child, Parameter, Weights


@frozen
class TokenEmbeddingConfig(Config):
    """A table with one row for every token.

    Attributes:
        vocab_size: number of tokens.
        embedding_dim: width.
    """

    class_name: str = field(init=False, default="TokenEmbedding")
    vocab_size: int = -1
    embedding_dim: int = -1
    embed_init: InitConfig = field(default_factory=SmallInitConfig)
    param_dtype: DType = "float32"
    dtype: DType = "float32"

    def parameters(self) -> dict[str, Parameter | None]:
        """`weight` [vocab_size, embedding_dim]."""
        require_positive(self, "vocab_size", "embedding_dim")
        shape = (self.vocab_size, self.embedding_dim)
        return {"weight": Parameter(shape, ("V", "D"), self.embed_init, self.param_dtype)}


@frozen
class PatchEmbedConfig(Config):
    """Images to patches by a strided convolution.

    Attributes:
        dim: width of a patch's features.
        resolution: (height, width) that the model is made for; others work, too.
        channels_first: images are [B, C, height, width].
        stride: none: the patch size.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.PatchEmbedConfig(dim=8, num_channels=3, patch_size=4, stride=2)
        >>> config.patch, config.step
        ((4, 4), (2, 2))
    """

    class_name: str = field(init=False, default="PatchEmbed")
    dim: int = -1
    num_channels: int = -1
    resolution: tuple[int, int] | None = None
    channels_first: bool = False
    patch_size: int | tuple[int, int] = -1
    stride: int | tuple[int, int] | None = None
    weight_init: InitConfig = field(default_factory=SmallInitConfig)
    bias_init: InitConfig = field(default_factory=ZerosInitConfig)
    param_dtype: DType = "float32"
    dtype: DType = "float32"

    @property
    def patch(self) -> tuple[int, int]:
        """Sides (height, width) of a patch."""
        return _pair(self.patch_size)

    @property
    def step(self) -> tuple[int, int]:
        """Distances (along height, along width) between patches."""
        return self.patch if self.stride is None else _pair(self.stride)

    def children(self) -> dict[str, Child]:
        """`proj`: `weight` [dim, C, height, width] and `bias` [dim]."""
        for name in ("dim", "num_channels"):
            require(getattr(self, name) >= 1, f"{name}: expected an integer >= 1, got {getattr(self, name)}")
        sizes = (*self.patch, *self.step)
        require(min(sizes) >= 1, f"patch_size, stride: expected sizes >= 1, got {self.patch} and {self.step}")
        shape, dtype = (self.dim, self.num_channels, *self.patch), self.param_dtype
        weight = Parameter(shape, ("D", "C", "X", "Y"), self.weight_init, dtype)
        bias = Parameter((self.dim,), ("D",), self.bias_init, dtype, decay=False)
        return {"proj": Weights({"weight": weight, "bias": bias})}


@frozen
class PosEmbed2DConfig(Config):
    """A learned embedding of positions [1, X, Y, dim].

    Attributes:
        seqlens: grid (X, Y) of the table.
        allow_interpolation: other grids get a bicubic interpolation; otherwise they are refused.
        learnable: whether it is trained.

    Examples:
        >>> import plstm_config
        >>> plstm_config.parameter_tree(plstm_config.PosEmbed2DConfig(dim=8, seqlens=(4, 6)))["embed"].shape
        (1, 4, 6, 8)
    """

    class_name: str = field(init=False, default="PosEmbed2D")
    seqlens: tuple[int, int] | None = None
    dim: int = -1
    allow_interpolation: bool = True
    learnable: bool = True
    embed_init: InitConfig = field(default_factory=SmallInitConfig)
    param_dtype: DType = "float32"
    dtype: DType = "float32"

    def parameters(self) -> dict[str, Parameter | None]:
        """`embed` [1, X, Y, dim]."""
        if self.seqlens is None or min(*self.seqlens, self.dim) < 1:
            raise ValueError(f"seqlens, dim: expected a grid and a width, got {self.seqlens} and {self.dim}")
        shape, axes = (1, *self.seqlens, self.dim), ("1", "X", "Y", "D")
        learned = self.learnable
        return {"embed": Parameter(shape, axes, self.embed_init, self.param_dtype, decay=False, learned=learned)}


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
