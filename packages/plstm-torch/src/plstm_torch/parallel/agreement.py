"""All ranks agree on a call before any exchanges data: what one refuses, all refuse, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh

from plstm_torch.parallel.collectives import gather_values

Facts = Mapping[str, object]
Checked = tuple[Facts, tuple[int, ...]]
# Errors that are the caller's, by name: what another rank raised is raised here by the same name.
_ERRORS: dict[str, type[Exception]] = {"ValueError": ValueError, "TypeError": TypeError}


def check_mesh(mesh: object, dimensions: tuple[int, ...]) -> DeviceMesh:
    """Check that a mesh can be computed on.

    Args:
        mesh: the mesh, or the part of a larger one that the call is spread over.
        dimensions: numbers of dimensions that it may have.

    Returns:
        The mesh.

    Raises:
        TypeError: it is no mesh.
        ValueError: it has another number of dimensions.
    """
    if not isinstance(mesh, DeviceMesh):
        raise TypeError(f"mesh: expected a torch.distributed.device_mesh.DeviceMesh, got {type(mesh).__name__}")
    if mesh.ndim not in dimensions:
        counts = " or ".join(str(count) for count in dimensions)
        raise ValueError(f"mesh: expected {counts} dimension(s), got {mesh.ndim} of sizes {tuple(mesh.shape)}")
    return mesh


def agree(mesh: DeviceMesh, check: Callable[[], Checked], count: int = 1) -> list[tuple[int, ...]]:
    """Compare a call on all ranks of a mesh.

    One small collective for each dimension of the mesh, and the host waits for it. Where something is wrong there is
    another one, so that every rank can say what.

    Args:
        mesh: whose ranks take part.
        check: looks at this rank's arguments; returns what has to be the same everywhere, by name, and integers that
            may differ, such as sizes of its piece. It raises ValueError or TypeError.
        count: number of these integers.

    Returns:
        The integers of every rank, in the order of the mesh, the last dimension fastest.

    Raises:
        TypeError: as `check` raises on any rank.
        ValueError: the same, or something differs between the ranks.
    """
    facts, sizes, error = _attempt(check, count)
    digest = int.from_bytes(blake2b(repr(sorted(facts.items())).encode(), digest_size=7).digest(), "big")
    header = torch.tensor([error is None, digest, *sizes], device=mesh.device_type)
    headers = _gather(header, mesh).tolist()
    if all(right and other == digest for right, other, *_ in headers):
        return [tuple(sizes) for _, _, *sizes in headers]
    if error is not None:
        _describe(mesh, {}, error)
        raise error
    raise _disagreement(_describe(mesh, facts, None))


def _attempt(check: Callable[[], Checked], count: int) -> tuple[Facts, tuple[int, ...], Exception | None]:
    try:
        facts, sizes = check()
    except (ValueError, TypeError) as error:
        return {}, (0,) * count, error
    return facts, sizes, None


def _gather(row: Tensor, mesh: DeviceMesh) -> Tensor:
    """Rows [n] of all ranks [R, n], along one dimension of the mesh after the other, from the last."""
    rows = row.unsqueeze(0)
    for dimension in reversed(range(mesh.ndim)):
        rows = gather_values(rows, mesh.get_group(dimension)).flatten(0, 1)
    return rows


def _describe(mesh: DeviceMesh, facts: Facts, error: Exception | None) -> list[Any]:
    """What every rank saw: its facts, and the name and message of its error."""
    seen: list[Any] = [(dict(facts), None if error is None else (_name(error), str(error)))]
    for dimension in reversed(range(mesh.ndim)):
        group = mesh.get_group(dimension)
        gathered: list[Any] = [None] * group.size()
        distributed.all_gather_object(gathered, seen, group=group)
        seen = [one for many in gathered for one in many]
    return seen


def _name(error: Exception) -> str:
    return "TypeError" if isinstance(error, TypeError) else "ValueError"


def _disagreement(seen: list[Any]) -> Exception:
    """The error that a rank raises whose own arguments are right."""
    for rank, (_, error) in enumerate(seen):
        if error is not None:
            name, message = error
            return _ERRORS[name](f"{message} (on rank {rank} of the mesh)")
    for name in seen[0][0]:
        values = [facts.get(name) for facts, _ in seen]
        if any(value != values[0] for value in values):
            return ValueError(f"{name}: expected the same on all ranks of the mesh, got {values}")
    names = [sorted(facts) for facts, _ in seen]
    return ValueError(f"arguments: expected the same on all ranks of the mesh, got {names}")
