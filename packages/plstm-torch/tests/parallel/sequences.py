"""The op on sequences in pieces."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from ranks import Finding, World, errors
from torch import Tensor, distributed

from plstm_torch import ops, parallel

BATCH, DK, DV = 2, 4, 3
NAMES = "query key value source transition mark direct"
SCALAR, MATRIX = (1, 1, 1, 1, 1), (2, 3, 2, 2, 1)  # JT, JK, JV, JO, JQ


def draw(length: int, sizes: Sequence[int], batch: int = BATCH) -> list[Tensor]:
    """Arguments from query to direct, with transitions that are negative or zero, too."""
    jt, jk, jv, jo, jq = sizes
    rows = (batch, length)
    shapes = [(DK, jq), (DK, jk), (DV, jv), (jt, jk, jv), (jt, jt), (jo, jq, jt), (jo, jq, jk, jv)]
    drawn = [torch.randn(*rows, *shape, dtype=torch.float64) for shape in shapes]
    drawn[4][:, 1::5] = 0.0
    return drawn


def leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def cut(world: World, length: int, kind: str) -> list[int]:
    """Lengths of the pieces."""
    if kind == "even":
        return [length * (rank + 1) // world.size - length * rank // world.size for rank in range(world.size)]
    first = length // 3
    return [first, 0, length - first - 1, 1][: world.size] if world.size == 4 else [0, length]


def compare(
    world: World,
    length: int,
    sizes: Sequence[int],
    borders: list[int] | None,
    kind: str,
    *,
    state: bool,
    batch: int = BATCH,
    **options: bool,
) -> Iterator[Finding]:
    """Output, last state and all gradients of the pieces, and of the whole."""
    whole, lengths = draw(length, sizes, batch), cut(world, length, kind)
    packed = () if borders is None else (len(borders) - 1,)
    bounds = None if borders is None else torch.tensor(borders)
    states = [torch.randn(batch, *packed, DK, DV, sizes[0], dtype=torch.float64)] if state else []

    def run(op: Callable[..., tuple[Tensor, Tensor]], tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
        given = tensors[7] if state else None
        return op(*tensors[:7], initial_state=given, return_last_state=True, cu_seqlens=bounds)

    reference = leaves(whole + states)
    output, last = run(ops.plstm_1d, reference)
    weight, last_weight = torch.randn_like(output), torch.randn_like(last)
    expected = torch.autograd.grad((output * weight).sum() + (last * last_weight).sum(), reference)

    def piece(tensor: Tensor) -> Tensor:
        return tensor.split(lengths, 1)[world.rank]

    own = leaves([*map(piece, whole), *states])
    mesh = distributed.init_device_mesh("cpu", (world.size,))
    part, end = run(partial(parallel.plstm_1d, mesh=mesh, **options), own)
    # the last state is on every rank: each has a share of its loss
    loss = (part * piece(weight)).sum() + (end * last_weight).sum() / world.size
    grads = torch.autograd.grad(loss, own)
    yield from errors("output last", [part, end], [piece(output), last])
    yield from errors(NAMES, grads[:7], [piece(grad) for grad in expected[:7]])
    if state:
        yield from errors("initial", [world.sum(grads[7])], expected[7:])


def not_finite(world: World) -> Iterator[Finding]:
    """What is not finite stays in its packed sequence, whichever rank holds it."""
    borders = [0, 5, 12, 19]
    mesh = distributed.init_device_mesh("cpu", (world.size,))
    for place, value in ((6, float("nan")), (11, float("inf"))):
        for argument in (2, 3, 4):
            whole = draw(borders[-1], SCALAR)
            whole[argument][:, place] = value
            reference, zero = leaves(whole), torch.zeros(BATCH, len(borders) - 1, DK, DV, 1, dtype=torch.float64)
            output = ops.plstm_1d(*reference, initial_state=zero, cu_seqlens=torch.tensor(borders))
            output.square().sum().backward()
            own = leaves([parallel.split_sequence(tensor, mesh) for tensor in whole])
            part = parallel.plstm_1d(*own, mesh=mesh, initial_state=zero, cu_seqlens=torch.tensor(borders))
            part.square().sum().backward()
            yield from errors("output", [part], [parallel.split_sequence(output, mesh)])
            expected = [parallel.split_sequence(tensor.grad, mesh) for tensor in reference]
            yield from errors(NAMES, [tensor.grad for tensor in own], expected)


def second_derivatives(world: World, length: int) -> Iterator[Finding]:
    mesh = distributed.init_device_mesh("cpu", (world.size,))
    whole = draw(length, MATRIX)
    directions = [torch.randn_like(tensor) for tensor in whole]

    def twice(op: Callable[..., Tensor], tensors: list[Tensor], along: list[Tensor]) -> tuple[Tensor, ...]:
        grads = torch.autograd.grad(op(*tensors).square().sum(), tensors, create_graph=True)
        products = [(grad * direction).sum() for grad, direction in zip(grads, along, strict=True)]
        return torch.autograd.grad(sum(products), tensors)

    def piece(tensor: Tensor) -> Tensor:
        return parallel.split_sequence(tensor, mesh)

    expected = twice(ops.plstm_1d, leaves(whole), directions)
    own = twice(partial(parallel.plstm_1d, mesh=mesh), leaves(list(map(piece, whole))), list(map(piece, directions)))
    yield from errors(NAMES, own, list(map(piece, expected)))


def narrow_dtypes(world: World) -> Iterator[Finding]:
    """Everything is computed in float32, as in the whole: nothing is rounded on the way between the ranks."""
    mesh = distributed.init_device_mesh("cpu", (world.size,))
    whole = [tensor.bfloat16() for tensor in draw(9, SCALAR)]
    expected, last = ops.plstm_1d(*[tensor.double() for tensor in whole], return_last_state=True)
    pieces = [parallel.split_sequence(tensor, mesh) for tensor in whole]
    with torch.autocast("cpu"):
        output, end = parallel.plstm_1d(*pieces, mesh=mesh, return_last_state=True)
    same = output.dtype == torch.bfloat16 and end.dtype == torch.float32
    yield "dtypes", 0.0 if same else 1.0
    rounded = parallel.split_sequence(expected, mesh).bfloat16()
    yield "output", float((output - rounded).abs().max() > 0.02 * expected.abs().max())
    yield "last", float((end - last).abs().max() > 1e-5 * last.abs().max())


def refused(world: World) -> Iterator[Finding]:
    """What one rank refuses, all refuse."""
    mesh = distributed.init_device_mesh("cpu", (world.size,))
    whole, last = draw(8, SCALAR), world.rank == world.size - 1
    pieces = [parallel.split_sequence(tensor, mesh) for tensor in whole]

    def raises(start: str, call: Callable[[], object]) -> Finding:
        message = world.message(call)
        return message, 0.0 if message.startswith(start) else 1.0

    def with_argument(index: int, tensor: object) -> list:
        return [tensor if last and place == index else one for place, one in enumerate(pieces)]

    def op(*arguments: object, **options: object) -> Callable[[], object]:
        return lambda: parallel.plstm_1d(*arguments, **{"mesh": mesh, **options})

    yield raises("ValueError: query: expected DK >= 1", op(*with_argument(0, pieces[0][..., :0, :])))
    yield raises("TypeError: value: expected a torch.Tensor, got list", op(*with_argument(2, [])))
    yield raises("ValueError: B: expected the same on all ranks", op(*[one[: 1 + last] for one in pieces]))
    other = [one.float() for one in pieces] if last else pieces
    yield raises("ValueError: dtype of the arguments: expected the same on all ranks", op(*other))
    yield raises("ValueError: cu_seqlens: expected the last boundary", op(*pieces, cu_seqlens=torch.tensor([0, 7])))
    yield raises(
        "ValueError: cu_seqlens: expected the same on all ranks", op(*pieces, cu_seqlens=torch.tensor([0, 2 + last, 8]))
    )
    yield raises("ValueError: implementation: expected", op(*pieces, implementation="fast" if last else "auto"))
    yield raises("TypeError: mesh: expected", op(*pieces, mesh=distributed.group.WORLD))
    yield raises(
        "ValueError: mesh: expected 1 dimension", op(*pieces, mesh=distributed.init_device_mesh("cpu", (1, world.size)))
    )


def case(borders: list[int] | None = None, kind: str = "even", *, state: bool = True, **options: bool) -> Callable:
    """`compare` with lengths and sizes yet to come."""
    return partial(compare, borders=borders, kind=kind, state=state, **options)


CASES = {
    "scalar gates": partial(case(), length=37, sizes=SCALAR),
    "scalar gates from zero": partial(case(state=False), length=37, sizes=SCALAR),
    "matrix gates": partial(case(), length=21, sizes=MATRIX),
    "uneven pieces": partial(case(kind="uneven"), length=21, sizes=MATRIX),
    "fewer steps than ranks": partial(case(), length=1, sizes=MATRIX),
    "no step": partial(case(), length=0, sizes=SCALAR),
    "no row of the batch": partial(case(), length=8, sizes=MATRIX, batch=0),
    "packed": partial(case([0, 2, 2, 13, 20, 23, 23]), length=23, sizes=MATRIX),
    "packed from zero": partial(case([0, 0, 22, 23], state=False), length=23, sizes=SCALAR),
    "packed in uneven pieces": partial(case([0, 9, 23], "uneven"), length=23, sizes=SCALAR),
    "packed where pieces meet": partial(case([0, 2, 4, 6, 8]), length=8, sizes=SCALAR),
    "without agreement": partial(case(agree=False), length=16, sizes=SCALAR),
    "packed without agreement": partial(case([0, 4, 23], agree=False), length=23, sizes=SCALAR),
    "what is not finite": not_finite,
    "second derivatives": partial(second_derivatives, length=9),
    "second derivatives of fewer steps than ranks": partial(second_derivatives, length=3),
    "second derivatives of a step": partial(second_derivatives, length=1),
    "narrow dtypes": narrow_dtypes,
    "bad arguments": refused,
}
