"""The linear layer of all other layers and blocks."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from plstm_config import LinearConfig
from plstm_config.checks import check_features
from plstm_torch.build import register
from plstm_torch.module import Module


@register(LinearConfig)
class Linear(Module, nn.Linear):
    """y = W x + b, with initialisers and dtypes as the config states them.

    It is one of torch's linear maps to libraries that look for these, to adapt or quantise them.

    Parameters: `weight` [output_dim, input_dim] and, if the config's `bias` is set, `bias` [output_dim].

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> linear = plstm_torch.build(plstm_config.LinearConfig(input_dim=8, output_dim=3, dtype="bfloat16"))
        >>> linear.weight.dtype, linear(torch.rand(5, 8)).dtype
        (torch.float32, torch.bfloat16)
    """

    config: LinearConfig
    weight: nn.Parameter
    bias: nn.Parameter | None  # type: ignore[assignment]  # torch's own says nothing of maps without

    def __init__(self, config: LinearConfig) -> None:
        super().__init__(config)
        self.in_features, self.out_features = config.input_dim, config.output_dim

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch E"]:
        """Apply the map to the last axis.

        Args:
            x: input [..., input_dim] of any floating dtype.

        Returns:
            Output [..., output_dim] in the config's dtype (or as the caller's autocast says).

        Raises:
            ValueError: if the last axis of x has another size.
        """
        check_features(x, "... D", self.config.input_dim)
        bias = None if self.bias is None else self.bias.to(self.dtype)
        return F.linear(x.to(self.dtype), self.weight.to(self.dtype), bias)

    def extra_repr(self) -> str:
        """Sizes, for the printed module."""
        return f"{self.config.input_dim} -> {self.config.output_dim}, bias={self.bias is not None}"
