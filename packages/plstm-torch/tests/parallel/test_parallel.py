"""Sequences and grids spread over 2 and 4 processes equal the whole; the cases lie beside this file."""

import json
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
    return list(cases.CASES)


@pytest.fixture(scope="module", params=[2, 4])
def found(request, tmp_path_factory):
    """What each of the ranks found, started once for all cases."""
    size, folder = request.param, tmp_path_factory.mktemp("ranks")
    words = [sys.executable, "-W", "error", str(HERE / "ranks.py")]
    logs = [(folder / f"{rank}.log").open("w") for rank in range(size)]
    processes = [
        subprocess.Popen([*words, str(rank), str(size), str(folder)], stdout=log, stderr=subprocess.STDOUT)
        for rank, log in enumerate(logs)
    ]
    try:
        codes = [process.wait(SECONDS) for process in processes]
    finally:
        for process, log in zip(processes, logs, strict=True):
            process.kill()
            log.close()
    said = "".join((folder / f"{rank}.log").read_text() for rank in range(size))
    return size, codes, said, [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def test_all_ranks_end(found):
    _, codes, said, _ = found
    assert not any(codes), said


@pytest.mark.parametrize("name", case_names())
def test_ranks_equal_the_whole(found, name):
    size, _, _, ranks = found
    assert len(ranks) == size
    for rank, findings in enumerate(ranks):
        assert findings[name], "nothing compared"
        for what, error in findings[name]:
            assert error < tolerance("float64", "gradient"), f"rank {rank}: {what}"
