"""Functions that the compiler leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch._compile import _disable_dynamo

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def outside_compiler(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Make a function a graph break, as `torch.compiler.disable` does.

    That one loads the compiler when it decorates, which takes longer than all of this package; torch's own decorator
    waits for the first call.
    """
    return _disable_dynamo(function)
