"""pLSTM on sequences."""

from dataclasses import field
from typing import Literal

from plstm_config.base import frozen, require
from plstm_config.checks import Kind
from plstm_config.convolution import Convolution1DLayerConfig
from plstm_config.interaction import InteractionLayerConfig
from plstm_config.parameters import Child


@frozen
class pLSTM1DLayerConfig(InteractionLayerConfig):
    """A pLSTM layer on sequences [B, T, input_dim], causal unless told; see `InteractionLayerConfig` for other fields.

    With `bidirectional` the layer reads every sequence from both ends, as the fused layer on grids does from its four
    corners: source, transition and mark have 2 H heads, index 2 h + o, where o = 1 runs from the end to the start, and
    all else is shared. It needs whole sequences, so it has no cache, and its convolution is centred: a causal one would
    show the two directions different neighbours. Nothing changes for other layers, neither names nor weights.

    Attributes:
        bidirectional: sum over both directions, with the direct term once.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.pLSTM1DLayerConfig(input_dim=32, num_heads=4, JT=2, JV=2, JO=2)
        >>> config.DK, config.DV, config.source.JT
        (8, 4, 2)
    """

    class_name: str = field(init=False, default="pLSTM1DLayer")
    bidirectional: bool = False
    JV: int = 4
    JT: int = 4
    JO: int = 4
    convolution: Convolution1DLayerConfig | None = None
    convolution_inputs: str = "STMDQKstP"
    implementation: Literal["auto", "recurrent", "chunkwise"] = "auto"

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """On sequences, causal or not."""
        return "bidirectional" if self.bidirectional else "sequence"

    @property
    def num_directions(self) -> int:
        """How often a sequence is read: O."""
        return 2 if self.bidirectional else 1

    @property
    def _gate_heads(self) -> int:
        return self.num_directions * self.num_heads

    def _complete(self) -> None:
        super()._complete()
        if self.input_dim < 1:
            return
        if self.additional_convolution:
            structure = {"input_dim": self.input_dim, "causal": not self.bidirectional}
            self._child("convolution", Convolution1DLayerConfig, structure, self._types())
        else:
            require(
                self.convolution is None, "convolution: expected None, since additional_convolution=False, got a config"
            )

    def children(self) -> dict[str, Child]:
        """Those of every layer, the convolution and the gates, which have H * O heads, index h * O + o."""
        gates = {"source": self.source, "transition": self.transition, "mark": self.mark}
        return {**super().children(), "conv": self.convolution, **gates}
