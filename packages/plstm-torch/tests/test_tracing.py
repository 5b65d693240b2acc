"""What the compiler of the oldest torch that is supported cannot trace, which newer ones would not show."""

import re
from pathlib import Path

import pytest
import torch

import plstm_torch
from plstm_torch.dtypes import without_autocast
from plstm_torch.ops import _exporting
from plstm_torch.tracing import constant_while_traced

SOURCES = Path(plstm_torch.__file__).parent
TRACED = [path for folder in ("ops", "layers", "blocks", "models") for path in (SOURCES / folder).rglob("*.py")]
# torch 2.11 takes is_exporting for true whenever it traces, and breaks the program at the others
UNTRACEABLE = re.compile(r"\bvars\(|is_autocast_available\(|torch\.compiler\.is_exporting\(")
ALLOWED = {Path(_exporting.__file__)}  # asked while tracing, not in the program


@pytest.mark.parametrize("path", TRACED, ids=lambda path: str(path.relative_to(SOURCES)))
def test_traced_code_asks_nothing_that_breaks_programs(path):
    found = [line for line in path.read_text().splitlines() if UNTRACEABLE.search(line)]
    assert path in ALLOWED or not found


def test_questions_to_the_machine_are_constants_of_a_program():
    asked = []

    def ask(device):
        asked.append(device)
        return torch.amp.is_autocast_available(device)

    question = constant_while_traced(ask)

    def function(x):
        with without_autocast(x):
            return x + 1 if question(x.device.type) and not _exporting.is_exporting() else x

    compiled = torch.compile(function, fullgraph=True, backend="eager")
    x = torch.zeros(2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(x), x + 1)
        compiled(x)
    assert asked == ["cpu"]
