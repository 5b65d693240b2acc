"""Sequences and grids spread over 2 and 4 processes equal the whole; the cases lie beside this file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plstm_testing.tolerances import tolerance

HERE = Path(__file__).parent
SECONDS = 300


def case_names():
    """The names as they stand in the sources: the cases themselves are imported by the ranks alone."""
    sys.path.insert(0, str(HERE))
    try:
        import cases
    finally:
        sys.path.remove(str(HERE))
        for path in HERE.glob("*.py"):  # short names, which other folders may have, too
            sys.modules.pop(path.stem, None)
    return list(cases.CASES)


@pytest.fixture(scope="module", params=[2, 4])
def found(request, tmp_path_factory):
    """What each of the ranks found, started once for all cases."""
    size, folder = request.param, tmp_path_factory.mktemp("ranks")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    command = [sys.executable, *launcher, str(HERE / "ranks.py"), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS)
    return size, done, [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def test_all_ranks_end(found):
    _, done, _ = found
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", case_names())
def test_ranks_equal_the_whole(found, name):
    size, _, ranks = found
    assert len(ranks) == size
    for rank, findings in enumerate(ranks):
        assert findings[name], "nothing compared"
        for what, error in findings[name]:
            assert error < tolerance("float64", "gradient"), f"rank {rank}: {what}"
