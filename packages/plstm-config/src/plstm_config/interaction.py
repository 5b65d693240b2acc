"""What the pLSTM layers on sequences and grids share."""

from dataclasses import field
from typing import Literal

from plstm_config.base import ModuleConfig, frozen, require, require_divisible, require_positive
from plstm_config.gates import DirectLayerConfig, MarkLayerConfig, SourceLayerConfig
from plstm_config.initializers import InitConfig, SmallInitConfig, ZerosInitConfig
from plstm_config.linear import LinearConfig
from plstm_config.norms import MultiHeadRMSNormConfig, NormConfig, require_axis
from plstm_config.parameters import Child
from plstm_config.pointwise import PassthroughLayerConfig
from plstm_config.query_key_value import KeyLayerConfig, QueryLayerConfig, ValueLayerConfig
from plstm_config.transition import LongRangeTransitionLayerConfig

Implementation = Literal["auto", "recurrent", "chunkwise", "parallel"]
_LETTERS = "STMDQKVPO"


@frozen
class InteractionLayerConfig(ModuleConfig):
    """A pLSTM layer: gates, projections, the recurrence, a norm per head, and the projection back.

    Attributes:
        num_heads: heads H.
        JQ, JK, JV, JT, JO: state-tracking dimensions; all one: scalar gates.
        DK: query and key dimension; negative: input_dim // JK // num_heads.
        DV: value dimension; negative: input_dim // JV // num_heads. num_heads * DV * JO must be the output width.
        sub_heads: slices of the input in query, key and value; negative: num_heads.
        additional_passthrough: add scale * x to the output.
        additional_convolution: convolve what the parts named in `convolution_inputs` read.
        convolution_inputs: letters of the parts that read the convolution: S T M D Q K V, P passthrough, O orientation.
        outprojection: project the heads' outputs back to the output width.
        tie_query_key: use the query for the key.
        implementation: of the op; "auto" chooses.
    """

    num_heads: int = 1
    JK: int = 1
    JQ: int = 1
    JV: int = 1
    JT: int = 1
    JO: int = 1
    DK: int = -1
    DV: int = -1
    source: SourceLayerConfig | None = None
    transition: LongRangeTransitionLayerConfig | None = None
    mark: MarkLayerConfig | None = None
    direct: DirectLayerConfig | None = None
    query: QueryLayerConfig | None = None
    key: KeyLayerConfig | None = None
    value: ValueLayerConfig | None = None
    passthrough: PassthroughLayerConfig | None = None
    mhnorm: NormConfig | None = None
    sub_heads: int = -1
    additional_passthrough: bool = True
    additional_convolution: bool = True
    convolution_inputs: str = ""
    outprojection: bool = True
    outprojection_bias: bool = False
    outprojection_weight_init: InitConfig = field(default_factory=SmallInitConfig)
    outprojection_bias_init: InitConfig = field(default_factory=ZerosInitConfig)
    tie_query_key: bool = False
    implementation: Implementation = "auto"

    @property
    def _gate_heads(self) -> int:
        """Heads of source, transition and mark."""
        return self.num_heads

    def _complete(self) -> None:
        super()._complete()
        require_positive(self, "num_heads", "JK", "JQ", "JV", "JT", "JO")
        self._derive("sub_heads", self.num_heads)
        if self.input_dim < 1:
            return  # to be filled by the parent
        self._derive("DK", self.input_dim // self.JK // self.num_heads)
        self._derive("DV", self.input_dim // self.JV // self.num_heads)
        require(self.DK >= 1, f"DK: expected at least one of input_dim={self.input_dim} for each head, got {self.DK}")
        require(self.DV >= 1, f"DV: expected at least one of input_dim={self.input_dim} for each head, got {self.DV}")
        self._check_widths()
        self._complete_gates()
        self._complete_projections()

    def _check_widths(self) -> None:
        require_divisible(self, "input_dim", "num_heads")
        width = self.num_heads * self.DV * self.JO
        require(
            width == self.output_dim,
            f"output_dim: expected num_heads*DV*JO={self.num_heads}*{self.DV}*{self.JO}={width}, got {self.output_dim}",
        )

    def _complete_gates(self) -> None:
        gate = {"num_heads": self._gate_heads, "input_dim": self.input_dim}
        types = self._types()
        j = {name: getattr(self, name) for name in ("JQ", "JK", "JV", "JT", "JO")}

        def pick(*names: str) -> dict[str, int]:
            return {name: j[name] for name in names}

        self._child("source", SourceLayerConfig, gate | pick("JT", "JK", "JV"), types)
        self._child("mark", MarkLayerConfig, gate | pick("JO", "JQ", "JT"), types)
        transition = gate | {"transition_dim": self.JT}
        self._child("transition", LongRangeTransitionLayerConfig, transition, types)
        direct = gate | {"num_heads": self.num_heads} | pick("JO", "JQ", "JK", "JV")
        self._child("direct", DirectLayerConfig, direct, types)

    def _complete_projections(self) -> None:
        heads = {"num_heads": self.num_heads, "input_dim": self.input_dim}
        auto = {"sub_heads": self.sub_heads, **self._types()}
        self._child("query", QueryLayerConfig, heads | {"DK": self.DK, "JQ": self.JQ}, auto)
        if self.tie_query_key:
            require(self.JQ == self.JK, f"JQ: expected JK={self.JK}, since tie_query_key=True, got {self.JQ}")
            require(self.key is None, "key: expected None, since tie_query_key=True, got a config")
        else:
            self._child("key", KeyLayerConfig, heads | {"DK": self.DK, "JK": self.JK}, auto)
        self._child("value", ValueLayerConfig, heads | {"DV": self.DV, "JV": self.JV}, auto)
        norm = {"num_heads": self.num_heads, "input_dim": self.output_dim}
        require_axis("mhnorm", self._child("mhnorm", MultiHeadRMSNormConfig, norm, self._types()), 1, None)
        if self.additional_passthrough:
            same = self.output_dim == self.input_dim
            require(same, f"output_dim: expected input_dim={self.input_dim} with a passthrough, got {self.output_dim}")
            width = {"input_dim": self.input_dim}
            self._child("passthrough", PassthroughLayerConfig, width, self._types())
        else:
            require(
                self.passthrough is None, "passthrough: expected None, since additional_passthrough=False, got a config"
            )
        unknown = sorted(set(self.convolution_inputs) - set(_LETTERS + "st"))
        require(not unknown, f"convolution_inputs: expected letters of {_LETTERS}, got {self.convolution_inputs!r}")

    def children(self) -> dict[str, Child]:
        """Projections, direct gate, norm, output projection and passthrough; layers add the rest."""
        return {
            "query": self.query,
            "key": self.key,
            "value_": self.value,
            "direct": self.direct,
            "mhnorm": self.mhnorm,
            "outprojection": self._outprojection() if self.outprojection else None,
            "passthrough": self.passthrough,
        }

    def _outprojection(self) -> LinearConfig:
        return LinearConfig(
            input_dim=self.num_heads * self.DV * self.JO,
            output_dim=self.output_dim,
            bias=self.outprojection_bias,
            weight_init=self.outprojection_weight_init,
            bias_init=self.outprojection_bias_init,
            axes=("D", "H"),
            **self._types(),
        )
