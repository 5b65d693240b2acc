"""The linear layer of all other layers and blocks."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from plstm_torch.initializers import initialize_
from plstm_torch.layers.inputs import check_features
from plstm_torch.module import Module, empty_parameter


class Linear(Module):
    """y = W x + b, with initialisers and dtypes as the configs state them.

    Parameters: `weight` [output_dim, input_dim] and, if there is one, `bias` [output_dim].

    Args:
        input_dim: Size of the last axis of the input.
        output_dim: Size of the last axis of the output.
        weight_init: Initialiser config of the weight.
        bias_init: Initialiser config of the bias; None leaves the bias out.
        dtype: Dtype of computation and output.
        param_dtype: Dtype of the parameters.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        *,
        weight_init: object,
        bias_init: object | None,
        dtype: torch.dtype,
        param_dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.weight_init = weight_init
        self.bias_init = bias_init
        self.dtype = dtype
        self.weight = empty_parameter((output_dim, input_dim), param_dtype)
        self.bias = None if bias_init is None else empty_parameter((output_dim,), param_dtype)
        self._reset_own_parameters()

    def _reset_own_parameters(self) -> None:
        initialize_(self.weight, self.weight_init)
        if self.bias is not None:
            initialize_(self.bias, self.bias_init)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch E"]:
        """Apply the map to the last axis.

        Args:
            x: Input [..., input_dim] of any floating dtype.

        Returns:
            Output [..., output_dim] in the config's dtype (or as the caller's autocast says).

        Raises:
            ValueError: If the last axis of x has another size.
        """
        check_features(x, "... D", self.input_dim)
        bias = None if self.bias is None else self.bias.to(self.dtype)
        return F.linear(x.to(self.dtype), self.weight.to(self.dtype), bias)

    def extra_repr(self) -> str:
        """Sizes, for the printed module."""
        return f"{self.input_dim} -> {self.output_dim}, bias={self.bias is not None}"
