"""Let torchvision be imported beside a torch whose builds it was not compiled for.

timm and transformers import torchvision for functions that this package's tests never call. Its wheels on registries
are compiled for CUDA builds of torch: beside a CPU build its operators are missing, and the import fails where it
describes them. Empty schemas under their names are enough for the import.
"""

import re
from importlib.util import find_spec
from pathlib import Path

import torch


def define_missing_operators() -> None:
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None or hasattr(torch.ops.torchvision, "nms"):
        return
    source = Path(spec.origin).with_name("_meta_registrations.py").read_text(encoding="utf-8")
    names = set(re.findall(r"register_meta\(\"(\w+)\"|torchvision::(\w+)", source))
    for name in sorted(first or second for first, second in names):
        torch.library.define(f"torchvision::{name}", "() -> ()")
