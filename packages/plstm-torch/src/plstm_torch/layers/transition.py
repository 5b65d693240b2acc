"""Transition layer: how a node passes the state on, with a bounded matrix."""

from jaxtyping import Float
from torch import Tensor, nn

from plstm_config import LongRangeTransitionLayerConfig
from plstm_config.checks import check_features
from plstm_torch.build import register
from plstm_torch.dtypes import accumulation_dtype, without_autocast
from plstm_torch.functional import (
    eigenvalue_activation,
    eigenvalue_restriction,
    exponential_orthogonalization,
    householder_orthogonalization,
    qr,
    singularvalue_restriction,
)
from plstm_torch.layers.gates import ScalarGate, head_projection
from plstm_torch.module import Module, constant


@register(LongRangeTransitionLayerConfig)
class LongRangeTransitionLayer(Module):
    """Transition T: input-dependent J x J matrices of limited eigenvalues (paper section on state tracking).

    T = U diag(lam) V with lam = act(eigenvalues), V = normalise(inproj), and U = normalise(outproj), or V^T if
    `symmetric`. For J = 1, T = lam. Each of eigenvalues, inproj and outproj is bias + weight x, with the heads and
    groups of features of the gates.

    The three orthogonalisations (qr, householder, exponential) bound the spectral norm of T by max |lam| <= 1.
    singularvalue_restriction does so to the accuracy of a power iteration; eigenvalue_restriction does not bound the
    norm at all (norms of 3.5 occur), and neither does the truncated series of the exponential far from zero.

    Parameters: `eigenvalues_bias` [H, J], `eigenvalues_weight` [H / s, s, J, D / s]; for J > 1 also `inproj_bias`
    [H, J, J], `inproj_weight` [H / s, s, J, J, D / s] and, unless symmetric, `outproj_bias`, `outproj_weight` alike.
    No weights if the config's `weight` is False.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> config = plstm_config.LongRangeTransitionLayerConfig(input_dim=8, num_heads=2, transition_dim=3)
        >>> transition = plstm_torch.build(config)(torch.rand(5, 8))  # [..., H, JT, JT]
        >>> bool((torch.linalg.matrix_norm(transition, ord=2) < 1 + 1e-5).all())
        True
    """

    config: LongRangeTransitionLayerConfig
    eigenvalues_bias: nn.Parameter
    eigenvalues_weight: nn.Parameter | None
    inproj_bias: nn.Parameter | None
    inproj_weight: nn.Parameter | None
    outproj_bias: nn.Parameter | None
    outproj_weight: nn.Parameter | None

    def __init__(self, config: LongRangeTransitionLayerConfig) -> None:
        super().__init__(config)
        self._eigenvalue_factor = constant(config.eigenvalue_factor)
        self._orthogonalization_factor = constant(config.orthogonalization_factor)

    def _project(self, x: Tensor, bias: Tensor, weight: Tensor | None) -> Tensor:
        z = bias.to(accumulation_dtype(self.dtype))
        return z if weight is None else z + head_projection(x, weight, self.dtype)

    def _activate(self, z: Tensor) -> Tensor:
        return eigenvalue_activation(z, self.config.eigenvalue_representation, float(self._eigenvalue_factor))

    def scalar_gate(self) -> ScalarGate | None:
        """The same as a number for every head, None if it is a matrix, or does not depend on the input."""
        if self.inproj_bias is not None or self.eigenvalues_weight is None:
            return None
        groups, sub_heads, _, width = self.eigenvalues_weight.shape
        kind = (self.dtype, groups, sub_heads, width)
        function = (f"eigenvalues {self.config.eigenvalue_representation}", self._eigenvalue_factor)
        return ScalarGate(self.eigenvalues_bias, self.eigenvalues_weight, kind, function, self._activate, 2)

    def _normalize(self, matrix: Tensor) -> Tensor:
        config = self.config
        order = config.orthogonalization_order
        match config.normalization_mode:
            case "qr":
                return qr(matrix)
            case "householder_orthogonalization":
                return householder_orthogonalization(matrix)
            case "exponential_orthogonalization":
                terms = None if config.matrix_exponential == "exact" else order
                return exponential_orthogonalization(matrix, float(self._orthogonalization_factor), terms)
            case "eigenvalue_restriction":
                return eigenvalue_restriction(matrix, order)
        return singularvalue_restriction(matrix, order)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch H J J"]:
        """Compute the transitions of all nodes.

        Args:
            x: node features [..., input_dim] of any floating dtype.

        Returns:
            Transitions [..., num_heads, J, J] in float32 or higher: a narrower dtype would spoil their long products.

        Raises:
            ValueError: if the last axis of x has another size.
        """
        config = self.config
        check_features(x, "... D", config.input_dim)
        shape = (*x.shape[:-1], config.num_heads, config.transition_dim, config.transition_dim)
        with without_autocast(x):
            z = self._project(x, self.eigenvalues_bias, self.eigenvalues_weight)
            eigenvalues = self._activate(z)
            if self.inproj_bias is None:
                return eigenvalues.unsqueeze(-1).expand(shape)
            right = self._normalize(self._project(x, self.inproj_bias, self.inproj_weight))
            if self.outproj_bias is None:
                left = right.mT
            else:
                left = self._normalize(self._project(x, self.outproj_bias, self.outproj_weight))
            return ((left * eigenvalues.unsqueeze(-2)) @ right).expand(shape)

    def extra_repr(self) -> str:
        """Sizes, for the printed module."""
        return f"{list(self.eigenvalues_bias.shape)}, {self.config.normalization_mode}"
