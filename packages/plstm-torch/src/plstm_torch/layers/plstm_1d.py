"""The pLSTM layer on sequences: parallel over time, or step by step; in one direction or in both at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from plstm_config import pLSTM1DLayerConfig
from plstm_config.checks import Kind, check_cache, check_features
from plstm_torch.build import register
from plstm_torch.context import Cache, Context, ContextModule, require_sequence
from plstm_torch.dtypes import accumulation_dtype, full_precision, stack, without_autocast
from plstm_torch.layers.convolution import Convolution1DLayer, sequence_index
from plstm_torch.layers.interaction import InteractionLayer, merge_heads, normalize_heads
from plstm_torch.ops import plstm_1d, plstm_1d_step
from plstm_torch.ops._plstm_1d.packing import checked_bounds


@dataclass(frozen=True)
class SequenceOperations:
    """What looks at more than one step of a sequence; everything else in a layer is position by position.

    Attributes:
        convolve: from the convolution, x [B, T, D], the windows before the sequences or None, and borders of packed
            ones or None, to its output and the windows behind, None if there were none before.
        plstm_1d: called as the op with all its arguments by keyword; output and last state.
    """

    convolve: Callable[[Convolution1DLayer, Tensor, Tensor | None, Tensor | None], tuple[Tensor, Tensor | None]]
    plstm_1d: Callable[..., Any]


class Spread(Protocol):
    """How sequences are spread over processes, see `plstm_torch.parallel`."""

    def run(self, layer: "pLSTM1DLayer", x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """Check the input, and run `pLSTM1DLayer.run_sequence` with other operations.

        Args:
            layer: the layer.
            x: this process's part of its input [B, T, input_dim].
            context: as of the whole.

        Returns:
            This process's part of the output, and the new cache of the whole.
        """


def _convolve_whole(
    conv: Convolution1DLayer, x: Tensor, window: Tensor | None, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    if window is None:
        return conv(x, cu_seqlens=cu_seqlens), None
    return conv.extend(x, window, cu_seqlens=cu_seqlens)


_WHOLE = SequenceOperations(_convolve_whole, lambda **arguments: plstm_1d(**arguments))


@register(pLSTM1DLayerConfig)
class pLSTM1DLayer(InteractionLayer, ContextModule):
    """Multi-head pLSTM over a sequence, causal unless `bidirectional` (paper eq. 5 and 6 on a path graph).

    c = conv(x); each letter of `convolution_inputs` among S T M D Q K V P lets that part read c in place of x.
    out = outprojection(norm(plstm_1d(query, key, value, source, transition, mark, direct))) + passthrough.

    With the config's `bidirectional`, the sum over both directions stands in place of `plstm_1d`, in one call of it,
    with `direct` once. Source, transition and mark have 2 H heads, index 2 h + o; o = 1 runs from the end to the start.
    Such a layer has no cache and takes no steps; its convolution is centred.

    Submodules: `conv`, `source`, `transition`, `mark`, `direct`, `query`, `key`, `value_`, `mhnorm`, `outprojection`,
    `passthrough`, those that the config switches on.

    A cache is a dict of `state` [B, H, DK, DV, JT], float32 or higher, and `window` [B, k - 1, D], the last inputs of
    the convolution (absent without one). After a packed pass its B rows are the sequences of all batch rows,
    row b * S + s for sequence s of row b.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> layer = plstm_torch.build(plstm_config.pLSTM1DLayerConfig(input_dim=16, num_heads=2))
        >>> x = torch.rand(3, 100, 16)
        >>> head, cache = layer(x[:, :60], return_cache=True)
        >>> torch.allclose(layer(x)[:, 60:], layer(x[:, 60:], cache=cache), atol=1e-5)
        True
        >>> both = plstm_torch.build(plstm_config.pLSTM1DLayerConfig(input_dim=16, num_heads=2, bidirectional=True))
        >>> both(x, cu_seqlens=torch.tensor([0, 60, 100])).shape  # from both ends of every sequence
        torch.Size([3, 100, 16])
    """

    config: pLSTM1DLayerConfig
    spread: Spread | None = None

    conv: Convolution1DLayer | None
    source: nn.Module
    transition: nn.Module
    mark: nn.Module

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """On sequences, causal or not."""
        return self.config.kind

    @property
    def _cache_names(self) -> tuple[str, ...]:
        return ("state",) if self.conv is None else ("state", "window")

    def init_cache(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Cache:
        """The cache before the first step: no state and zeros in the convolution's window.

        Args:
            batch_size: number of sequences.
            device: where to make it; by default where the parameters are.
            dtype: dtype of the window, by default the config's; the state has the same, but at least float32.

        Returns:
            A new cache.

        Raises:
            ValueError: if the layer is bidirectional.
        """
        require_sequence(self, "init_cache")
        config = self.config
        shape = (batch_size, config.num_heads, config.DK, config.DV, config.JT)
        place = device if device is not None else self.device
        state_dtype = accumulation_dtype(torch.promote_types(dtype or self.dtype, self.dtype))
        cache: Cache = {"state": torch.zeros(shape, dtype=state_dtype, device=place)}
        if self.conv is not None:
            cache["window"] = self.conv.init_window(batch_size, place, dtype)
        return cache

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        cache: Mapping[str, Any] | None = None,
        return_cache: bool = False,
        cu_seqlens: Int[Tensor, " S1"] | None = None,
    ) -> Float[Tensor, "B T D"] | tuple[Float[Tensor, "B T D"], Cache]:
        """Process whole sequences, or the next piece of each.

        Args:
            x: inputs [B, T, input_dim] of any floating dtype and any length T.
            cache: where to continue, from `init_cache`, `step`, or another call. It is not modified.
            return_cache: whether to return the cache after the last input, too.
            cu_seqlens: borders [S + 1] of sequences packed along T, shared by the batch; no sequence sees another.

        Returns:
            Output [B, T, output_dim] in the dtype of x, or (output, cache).

        Raises:
            ValueError: if x has another rank or number of features, the cache another batch size, cu_seqlens are no
                borders of x, or a cache is asked of a bidirectional layer.
        """
        context = Context(cache, return_cache, cu_seqlens)
        context.check(self)
        output, new_cache = self.run(x, context)
        return (output, new_cache) if return_cache else output

    def run(self, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """Process whole sequences or a step; see `forward` and `step`."""
        if context.stepping:
            return self._run_step(x, context)
        if self.spread is not None:
            return self.spread.run(self, x, context)
        if context.cu_seqlens is not None:
            check_features(x, "B T D", self.config.input_dim)
            bounds = checked_bounds(context.cu_seqlens, x.shape[1], x.device)
            context = replace(context, cu_seqlens=bounds)
        self.check_sequence(x, context)
        return self.run_sequence(x, context, _WHOLE)

    def check_sequence(self, x: Tensor, context: Context) -> None:
        """Check input and cache against the config and each other.

        Args:
            x: inputs [B, T, input_dim].
            context: cache, and borders of a right shape.

        Raises:
            ValueError: x has another rank or number of features, or the cache another batch size.
        """
        check_features(x, "B T D", self.config.input_dim)
        if context.cache is not None:
            count = 1 if context.cu_seqlens is None else len(context.cu_seqlens) - 1
            check_cache(context.cache, self._cache_names, x.shape[0] * count)

    def run_sequence(
        self, x: Float[Tensor, "B T D"], context: Context, operations: SequenceOperations
    ) -> tuple[Tensor, Cache]:
        """Process inputs that were checked.

        Args:
            x: inputs [B, T, input_dim].
            context: cache and borders.
            operations: what looks at more than one step.

        Returns:
            Output and new cache.
        """
        cache, cu_seqlens = context.cache, context.cu_seqlens
        if cu_seqlens is not None:
            cu_seqlens = torch.as_tensor(cu_seqlens, device=x.device)
        if cache is None and context.return_cache:
            rows = x.shape[0] if cu_seqlens is None else x.shape[0] * (cu_seqlens.shape[0] - 1)
            cache = self.init_cache(rows, x.device)
        convolved, window = x, None
        if self.conv is not None:
            before = None if cache is None else cache["window"]
            convolved, window = operations.convolve(self.conv, x, before, cu_seqlens)
        if self.config.bidirectional:
            heads = self._recur_both_ways(x, convolved, cu_seqlens)
            return self._project(normalize_heads(self.mhnorm, heads.flatten(-2)), x, convolved), {}
        state = None if cache is None else cache["state"]
        heads, state = self._recur(x, convolved, state, cu_seqlens, operations.plstm_1d)
        output = self._project(normalize_heads(self.mhnorm, heads.flatten(-2)), x, convolved)
        return output, self._cache(state, window)

    def _run_step(self, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """The recurrence itself, on the next input [B, D] of each sequence."""
        cache: Mapping[str, Any] = context.cache or {}
        check_features(x, "B D", self.config.input_dim)
        check_cache(cache, self._cache_names, x.shape[0])
        convolved, window = x, None
        if self.conv is not None:
            convolved, window = self.conv.step(x, cache["window"])
        arguments = {name: tensor.flatten(0, 1) for name, tensor in self._arguments(x, convolved).items()}
        with without_autocast(x):
            heads, state = plstm_1d_step(**arguments, state=cache["state"].flatten(0, 1))
        batch_heads = (x.shape[0], self.num_heads)
        heads = heads.unflatten(0, batch_heads).flatten(-2)
        output = self._project(normalize_heads(self.mhnorm, heads), x, convolved)
        return output, self._cache(state.unflatten(0, batch_heads), window)

    def _cache(self, state: Tensor, window: Tensor | None) -> Cache:
        return {"state": state} if window is None else {"state": state, "window": window}

    def _arguments(self, x: Tensor, convolved: Tensor) -> dict[str, Any]:
        """Inputs and gates of the recurrence, [..., H, ...] with the axes of x in front."""
        query, key, value = self._query_key_value(x, convolved)
        return {
            "query": query,
            "key": key,
            "value": value,
            "source": self.source(self._pick("S", x, convolved)),
            "transition": self.transition(self._pick("T", x, convolved)),
            "mark": self.mark(self._pick("M", x, convolved)),
            "direct": self.direct(self._pick("D", x, convolved)),
        }

    def _recur(
        self, x: Tensor, convolved: Tensor, state: Tensor | None, cu_seqlens: Tensor | None, op: Callable[..., Any]
    ) -> tuple[Tensor, Tensor]:
        """Heads' outputs [B, H, T, DV, JO] and state [rows, H, DK, DV, JT], from a state of that shape or None."""
        batch_heads = (x.shape[0], self.num_heads)
        arguments: dict[str, Any] = {
            name: merge_heads(tensor, 1) for name, tensor in self._arguments(x, convolved).items()
        }
        if state is not None and cu_seqlens is not None:
            # The op holds the sequences of a head side by side, the cache the heads of a sequence.
            state = state.unflatten(0, (x.shape[0], cu_seqlens.shape[0] - 1)).movedim(2, 1).flatten(0, 1)
        elif state is not None:
            state = state.flatten(0, 1)
        with without_autocast(x):
            output, last = op(
                **arguments,
                initial_state=state,
                return_last_state=True,
                implementation=self.config.implementation,
                cu_seqlens=cu_seqlens,
            )
        last = last.unflatten(0, batch_heads)
        return output.unflatten(0, batch_heads), last if cu_seqlens is None else last.movedim(2, 1).flatten(0, 1)

    def _recur_both_ways(self, x: Tensor, convolved: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        """Heads' outputs [B, H, T, DV, JO], summed over both directions, from one call of the op with 2 B H rows."""
        mirrored = None if cu_seqlens is None else _mirrored(cu_seqlens, x.shape[1])
        pairs = (x.shape[0] * self.num_heads, 2)

        def rows(name: str, tensor: Tensor) -> Tensor:
            """From [B, T, H, ...], gates [B, T, 2 H, ...], to [B * H * 2, T, ...], the second of two reversed."""
            tensor = merge_heads(tensor, 1)
            if name in ("source", "transition", "mark"):
                forward, backward = tensor.unflatten(0, pairs).unbind(1)
            else:
                forward, backward = tensor, torch.zeros_like(tensor) if name == "direct" else tensor
            return stack([forward, _reverse(backward, mirrored)], dim=1).flatten(0, 1)

        arguments: dict[str, Any] = {name: rows(name, tensor) for name, tensor in self._arguments(x, convolved).items()}
        with without_autocast(x):
            output: Any = plstm_1d(**arguments, implementation=self.config.implementation, cu_seqlens=cu_seqlens)
            forward, backward = full_precision(output).unflatten(0, pairs).unbind(1)
            summed = forward + _reverse(backward, mirrored)
        return summed.unflatten(0, (x.shape[0], self.num_heads))


def _mirrored(cu_seqlens: Tensor, length: int) -> Tensor:
    """The place [T] that each place of packed sequences has when every one of them is read from its end."""
    owner = sequence_index(cu_seqlens, length)
    starts, ends = cu_seqlens[:-1][owner], cu_seqlens[1:][owner]
    return starts + ends - 1 - torch.arange(length, device=cu_seqlens.device)


def _reverse(tensor: Tensor, mirrored: Tensor | None) -> Tensor:
    """Sequences [B, T, ...] from their ends to their starts; its own inverse."""
    return tensor.flip(1) if mirrored is None else tensor.index_select(1, mirrored)
