"""Gates of several modules at once: one product with their input instead of one for each."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from plstm_torch.context import is_bare
from plstm_torch.dtypes import accumulation_dtype, full_precision, stack
from plstm_torch.layers.gates import DirectLayer, MarkLayer, ScalarGate, SourceLayer, slice_products
from plstm_torch.layers.transition import LongRangeTransitionLayer

_GATES = (SourceLayer, MarkLayer, DirectLayer, LongRangeTransitionLayer)


def joint_gates(modules: Sequence[nn.Module], x: Float[Tensor, "B *grid D"]) -> list[Float[Tensor, "B H *grid ..."]]:
    """What modules of gates make of one input, with the heads in front of the nodes.

    Args:
        modules: called one by one if one of them is no gate of a number for every head, or has something around its
            calls, or if their weights are of several kinds.
        x: node features [B, ..., D].

    Returns:
        Gates [B, H, ..., J...], one for each module.
    """
    found = [_scalar_gate(module) for module in modules]
    gates = [gate for gate in found if gate is not None]
    if not gates or len(gates) < len(found) or any(gate.kind != gates[0].kind for gate in gates):
        return [module(x).movedim(x.dim() - 1, 1) for module in modules]
    alike: dict[tuple[str, str], list[int]] = {}
    for index, gate in enumerate(gates):
        alike.setdefault(gate.function, []).append(index)
    results: dict[int, Tensor] = {}
    z = _pre_activations([gates[index] for group in alike.values() for index in group], x)
    for group, part in zip(alike.values(), z.split([len(group) for group in alike.values()]), strict=True):
        for index, result in zip(group, gates[group[0]].activate(part).unbind(), strict=True):
            results[index] = result[(..., *[None] * gates[index].axes)]
    return [results[index] for index in range(len(gates))]


def _pre_activations(gates: Sequence[ScalarGate], x: Tensor) -> Tensor:
    """[G, B, H, ...] of G gates of one kind."""
    dtype, groups, sub_heads, width = gates[0].kind
    weight = stack([gate.weight.flatten() for gate in gates])  # flat, so that gradients are contiguous
    matrices = weight.to(dtype).unflatten(1, (groups, sub_heads, width)).permute(2, 0, 1, 3).flatten(1, 2)
    bias = stack([gate.bias.flatten() for gate in gates]).to(accumulation_dtype(dtype))
    product = full_precision(slice_products(x.to(dtype), matrices))
    heads = product.unflatten(1, (len(gates), groups)).permute(1, 2, 0, 3).flatten(1, 2)
    return heads.unflatten(-1, x.shape[:-1]).movedim(2, 1) + bias.reshape(len(gates), 1, -1, *[1] * (x.dim() - 2))


def _scalar_gate(module: nn.Module) -> ScalarGate | None:
    return module.scalar_gate() if isinstance(module, _GATES) and is_bare(module) else None
