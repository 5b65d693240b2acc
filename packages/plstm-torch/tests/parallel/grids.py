"""The ops on grids in tiles."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from ranks import Finding, World, errors
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh

from plstm_torch import ops, parallel

BATCH, DK, DV = 3, 4, 2
INPUTS = ("query", "key", "value", "direct")
SCALAR, MATRIX = (1, 1, 1, 1, 1), (2, 1, 2, 2, 3)  # JT, JK, JV, JO, JQ
DIRECTED = ("transition_dl", "transition_ru", "mark_u")
LEFT_OUT = {"general": (), "P": DIRECTED, "L": ("transition_dl",), "R": ("transition_ru",)}


def draw(sides: tuple[int, int], sizes: Sequence[int], mode: str, orientations: int) -> dict[str, Tensor]:
    """All arguments by name, with transitions that are negative or zero, too."""
    jt, jk, jv, jo, jq = sizes
    axes = (BATCH, orientations) if orientations > 1 else (BATCH,)
    shapes = {"query": (DK, jq), "key": (DK, jk), "value": (DV, jv), "direct": (jo, jq, jk, jv)}
    shapes |= {"source_r": (jt, jk, jv), "source_d": (jt, jk, jv), "mark_l": (jo, jq, jt), "mark_u": (jo, jq, jt)}
    shapes |= {f"transition_{turn}": (jt, jt) for turn in ("rl", "du", "dl", "ru")}
    drawn = {}
    for name, shape in shapes.items():
        if name not in LEFT_OUT[mode]:
            front = (BATCH,) if name in INPUTS else axes
            drawn[name] = torch.randn(*front, *sides, *shape, dtype=torch.float64)
    drawn["transition_rl"][..., 1:2, :, :, :] = 0.0
    return drawn


def mesh_of(world: World, shape: str) -> DeviceMesh:
    """Strips along X, or tiles; with two ranks these are strips along Y."""
    sizes = (world.size,) if shape == "strips" else (world.size // 2, 2)
    return distributed.init_device_mesh("cpu", sizes, mesh_dim_names=("x", "y")[: len(sizes)])


def leaves(named: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in named.items()}


def compare(
    world: World,
    sides: tuple[int, int],
    mode: str,
    shape: str,
    sizes: Sequence[int] = SCALAR,
    *,
    oriented: bool = False,
    states: bool = False,
    spoilt: bool = False,
    **options: int | bool,
) -> Iterator[Finding]:
    """Output, what leaves and all gradients of the tiles, and of the whole."""
    mesh, orientations = mesh_of(world, shape), 4 if oriented else 1
    whole = draw(sides, sizes, mode, orientations)
    ahead = (BATCH, orientations) if oriented else (BATCH,)
    if spoilt:
        whole["value"][0, 2, 3] = float("nan")
    if states:
        for name, length in zip(("left", "top"), sides[::-1], strict=True):
            whole[name] = torch.randn(*ahead, length, DK, DV, sizes[0], dtype=torch.float64)
    name = "plstm_2d_oriented" if oriented else "plstm_2d"
    axes = {"left": (None, 1 + oriented), "top": (1 + oriented, None)}
    axes |= {name: (1, 2) if name in INPUTS else (1 + oriented, 2 + oriented) for name in whole if name not in axes}

    def tile(tensor: Tensor, dims: tuple[int | None, int | None]) -> Tensor:
        for dim, part in zip(dims, (mesh["x"], mesh["y"] if mesh.ndim == 2 else None), strict=True):
            if dim is not None and part is not None:
                tensor = parallel.split_sequence(tensor, part, dim)
        return tensor

    def run(op: Callable[..., tuple[Tensor, tuple[Tensor, Tensor]]], named: dict[str, Tensor]) -> list[Tensor]:
        given = dict(named)
        entering = (given.pop("left"), given.pop("top")) if states else None
        output, last = op(**given, mode="P" if mode == "P" else None, initial_state=entering, return_last_state=True)
        return [output, *last]

    reference = leaves(whole)
    expected = run(getattr(ops, name), reference)
    weights = [torch.randn_like(tensor) for tensor in expected]
    # what leaves the grid counts where it leaves; inside, tiles hand it on
    sides_of = [(1, 2), axes["left"], axes["top"]]
    expected_grads = torch.autograd.grad(
        sum((one * weight).sum() for one, weight in zip(expected[: 1 if oriented else 3], weights, strict=False)),
        list(reference.values()), allow_unused=True,
    )  # fmt: skip
    own = leaves({name: tile(tensor, axes[name]) for name, tensor in whole.items()})
    found = run(partial(getattr(parallel, name), mesh=mesh, **options), own)
    place = [mesh.get_local_rank(axis) for axis in range(mesh.ndim)] + [0] * (2 - mesh.ndim)
    last = [place[axis] == (mesh.size(axis) if axis < mesh.ndim else 1) - 1 for axis in range(2)]
    counted = [True, *last] if not oriented else [True, False, False]
    loss = sum(
        (one * tile(weight, dims)).sum() * float(counts)
        for one, weight, dims, counts in zip(found, weights, sides_of, counted, strict=True)
    )
    grads = torch.autograd.grad(loss, list(own.values()))
    yield from errors("output", found[:1], [tile(expected[0], (1, 2))])
    if not oriented:
        for what, index, is_last in (("right", 1, last[0]), ("bottom", 2, last[1])):
            if is_last:
                yield from errors(what, [found[index]], [tile(expected[index], sides_of[index])])
    for what, grad, other in zip(own, grads, expected_grads, strict=True):
        if what in ("left", "top"):  # only tiles at that side see it
            spread = mesh["x"] if what == "left" else (mesh["y"] if mesh.ndim == 2 else None)
            total = grad.contiguous()
            if spread is not None:
                distributed.all_reduce(total, group=spread.get_group())
            grad = total
        yield from errors(what, [grad], [tile(other, axes[what])])


def second_derivatives(world: World, shape: str, *, oriented: bool) -> Iterator[Finding]:
    mesh = mesh_of(world, shape)
    whole = draw((5, 6), SCALAR, "L", 4 if oriented else 1)
    directions = {name: torch.randn_like(tensor) for name, tensor in whole.items()}
    name = "plstm_2d_oriented" if oriented else "plstm_2d"

    def twice(op: Callable[..., Tensor], given: dict[str, Tensor], along: dict[str, Tensor]) -> tuple[Tensor, ...]:
        grads = torch.autograd.grad(op(**given).square().sum(), list(given.values()), create_graph=True)
        products = [(grad * along[name]).sum() for name, grad in zip(given, grads, strict=True)]
        return torch.autograd.grad(sum(products), list(given.values()))

    def cut(named: dict[str, Tensor]) -> dict[str, Tensor]:
        axes = {name: (1, 2) if name in INPUTS else (1 + oriented, 2 + oriented) for name in named}
        return {name: parallel.split_grid(tensor, mesh, axes[name]) for name, tensor in named.items()}

    expected = dict(zip(whole, twice(getattr(ops, name), leaves(whole), directions), strict=True))
    found = twice(partial(getattr(parallel, name), mesh=mesh), leaves(cut(whole)), cut(directions))
    yield from errors(" ".join(whole), found, list(cut(expected).values()))


def refused(world: World) -> Iterator[Finding]:
    """What one rank refuses, all refuse."""
    mesh, last = mesh_of(world, "tiles"), world.rank == world.size - 1
    whole = draw((6, 8), SCALAR, "P", 1)
    own = {name: parallel.split_grid(tensor, mesh) for name, tensor in whole.items()}

    def call(mode: object = "P", **options: object) -> Callable[[], object]:
        return lambda: parallel.plstm_2d(**{**own, "mesh": mesh, **options}, mode=mode)

    short = {name: tensor[:, 1:] for name, tensor in own.items()} if last else {}
    calls = {
        "ValueError: mode: expected": call(mode="Q" if last else "P"),
        "ValueError: query: expected a tile of X=": call(**short),
        "TypeError: key: expected a torch.Tensor, got int": call(key=3 if last else own["key"]),
        "ValueError: parts: expected the same on all ranks": call(parts=1 + last),
        "ValueError: implementation: expected": call(implementation="triton"),
    }
    for start, one in calls.items():
        message = world.message(one)
        yield message, 0.0 if message.startswith(start) else 1.0


CASES = {
    **{f"{mode} in {shape}": partial(compare, sides=(7, 9), mode=mode, shape=shape, states=True)
       for mode in LEFT_OUT for shape in ("strips", "tiles")},
    "matrices in tiles": partial(compare, sides=(5, 6), mode="general", shape="tiles", sizes=MATRIX, states=True),
    "grid from zero": partial(compare, sides=(6, 5), mode="P", shape="tiles"),
    "grid in parts": partial(compare, sides=(6, 5), mode="L", shape="strips", states=True, parts=2),
    "more parts than rows": partial(compare, sides=(6, 5), mode="L", shape="tiles", states=True, parts=5),
    "four orientations": partial(compare, sides=(7, 6), mode="P", shape="tiles", oriented=True, states=True),
    "four orientations in strips": partial(compare, sides=(9, 4), mode="R", shape="strips", oriented=True, parts=2),
    "four orientations of matrices": partial(
        compare, sides=(5, 4), mode="L", shape="tiles", sizes=MATRIX, oriented=True, states=True, agree=False
    ),
    "tiles without nodes": partial(compare, sides=(1, 5), mode="P", shape="tiles", oriented=True, states=True),
    "strips without nodes": partial(compare, sides=(1, 5), mode="general", shape="strips", states=True),
    "a node that is not finite": partial(compare, sides=(6, 5), mode="L", shape="tiles", states=True, spoilt=True),
    "second derivatives in tiles": partial(second_derivatives, shape="tiles", oriented=True),
    "second derivatives in strips": partial(second_derivatives, shape="strips", oriented=False),
    "bad tiles": refused,
}  # fmt: skip
