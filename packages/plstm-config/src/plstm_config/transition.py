"""The transition layer: a scalar, or U diag(lambda) V with normalised U and V."""

from dataclasses import field
from typing import Literal

from plstm_config.base import Config, DType, frozen, require, require_divisible, require_positive
from plstm_config.gates import input_dependent
from plstm_config.initializers import DiagonalInitConfig, InitConfig, OnesInitConfig, ZerosInitConfig
from plstm_config.parameters import Parameter

EigenvalueRepresentation = Literal["logsigmoid", "expexp", "tanh"]
NormalizationMode = Literal[
    "qr",
    "eigenvalue_restriction",
    "singularvalue_restriction",
    "householder_orthogonalization",
    "exponential_orthogonalization",
]


def _identity() -> DiagonalInitConfig:
    return DiagonalInitConfig(value=1.0, in_axes=-2, out_axes=-1)


@frozen
class LongRangeTransitionLayerConfig(Config):
    """Transitions [H, JT, JT] that keep a state over long paths.

    Attributes:
        num_heads: heads H.
        transition_dim: JT; one is a scalar transition.
        input_dim: features of the input.
        sub_heads: slices of the input, as in the gates.
        eigenvalue_representation: logsigmoid exp(f*logsigmoid(z)), expexp exp(-f*exp(-z)), tanh tanh(f*z).
        eigenvalue_factor: f.
        symmetric: U is the transpose of V.
        normalization_mode: how U and V are normalised. Only qr, householder and the exact exponential are orthogonal;
            the two restrictions bound by power iteration only.
        orthogonalization_factor: factor of the skew matrix in the exponential.
        orthogonalization_order: power iterations, or terms of the truncated series.
        matrix_exponential: "exact", or "series": the truncated series, not orthogonal for large matrices.
        weight: whether the transition depends on the input.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.LongRangeTransitionLayerConfig(input_dim=8, transition_dim=3, symmetric=True)
        >>> list(plstm_config.parameter_tree(config))
        ['eigenvalues_bias', 'eigenvalues_weight', 'inproj_bias', 'inproj_weight']
    """

    class_name: str = field(init=False, default="LongRangeTransitionLayer")
    num_heads: int = 1
    transition_dim: int = -1
    input_dim: int = -1
    sub_heads: int = 1
    inproj_bias_init: InitConfig = field(default_factory=_identity)
    outproj_bias_init: InitConfig = field(default_factory=_identity)
    inproj_weight_init: InitConfig = field(default_factory=ZerosInitConfig)
    outproj_weight_init: InitConfig = field(default_factory=ZerosInitConfig)
    eigenvalue_bias_init: InitConfig = field(default_factory=OnesInitConfig)
    eigenvalue_weight_init: InitConfig = field(default_factory=ZerosInitConfig)
    eigenvalue_representation: EigenvalueRepresentation = "tanh"
    eigenvalue_factor: float = 5
    symmetric: bool = False
    orthogonalization_factor: float = 1.0
    orthogonalization_order: int = 16
    matrix_exponential: Literal["exact", "series"] = "exact"
    weight: bool = True
    normalization_mode: NormalizationMode = "exponential_orthogonalization"
    dtype: DType = "float32"
    param_dtype: DType = "float32"

    def _check(self) -> None:
        require_positive(self, "num_heads", "sub_heads", "orthogonalization_order")
        valid = self.transition_dim == -1 or self.transition_dim >= 1
        require(valid, f"transition_dim: expected an integer >= 1, got {self.transition_dim}")
        if self.weight and self.input_dim > 0:
            require_divisible(self, "num_heads", "sub_heads")
            require_divisible(self, "input_dim", "sub_heads")

    def parameters(self) -> dict[str, Parameter | None]:
        """`eigenvalues_*` [H, JT]; for JT > 1 `inproj_*` and, unless symmetric, `outproj_*` [H, JT, JT].

        Each is a bias and, with `weight`, a weight [H/s, s, J..., D/s].
        """
        require_positive(self, "transition_dim")
        matrix = self.transition_dim > 1
        found = self._projection("eigenvalues", "eigenvalue", 1)
        for name, exists in (("inproj", matrix), ("outproj", matrix and not self.symmetric)):
            projection = self._projection(name, name, 2)
            found |= projection if exists else dict.fromkeys(projection)
        return found

    def _projection(self, name: str, field_name: str, axes: int) -> dict[str, Parameter | None]:
        bias_init, weight_init = (getattr(self, f"{field_name}_{part}_init") for part in ("bias", "weight"))
        inner = [("JT", self.transition_dim)] * axes
        return input_dependent(self, inner, (f"{name}_bias", bias_init), (f"{name}_weight", weight_init))
