"""Constant tensors that outlive the call in which they are made, as caches of index tensors do.

A tensor remembers the mode that it was made in: an inference tensor cannot be saved for a backward pass, a fake one
holds no numbers, and one that was made within a transform belongs to it. So what is kept is made outside of them all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, MutableMapping
from contextlib import ExitStack
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode

Kept = TypeVar("Kept")


def constant(array: np.ndarray, device: torch.device) -> Tensor:
    """Integers as an int64 tensor on a device, whatever default the caller has set."""
    return torch.from_numpy(np.array(array, np.int64, order="C")).to(device)


def keep(known: MutableMapping[Hashable, Kept], key: Hashable, make: Callable[[], Kept]) -> Kept:
    """What a cache holds of constants, made on demand.

    Args:
        known: the cache.
        key: of what is wanted.
        make: makes it from arrays.

    Returns:
        The constants; not kept while a dispatch mode is active, whose tensors (fake ones, say) are its own.
    """
    if _get_current_dispatch_mode() is not None:
        return make()
    if key not in known:
        known[key] = make_apart(make)
    return known[key]


def make_apart(make: Callable[[], Kept]) -> Kept:
    """What `make` returns outside of inference mode, transforms and dispatch modes of the caller."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch._C._DisableFuncTorch())
        stack.enter_context(_disable_current_modes())
        return make()
