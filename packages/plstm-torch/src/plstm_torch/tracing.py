"""What the compiler takes for granted while it traces."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def constant_while_traced(function: Function) -> Function:
    """What `torch.compiler.assume_constant_result` does, which would import the compiler together with this package."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
