"""Running the tests of a package against installed distributions, and saying which of them fail."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from releasing.workspace import Package, ReleaseError

_SUITE = ("-p", "plstm_testing.conformance.plugin", "--pyargs", "plstm_testing.conformance.suite")


def run_tests(package: Package, python: str, against: str, out: Path, extra: Sequence[str] = ()) -> None:
    """Run a package's own tests and, if it has an adapter, the conformance suite.

    Args:
        package: the package, in the workspace or in the sources of a tag; its tests are taken from there.
        python: the interpreter of an environment in which the distributions are installed.
        against: what they are tested against, for the message.
        out: where reports are written.
        extra: further arguments of pytest.

    Raises:
        ReleaseError: tests fail; the message names the package, its version, and the tests.
    """
    runs: dict[str, list[str]] = {"tests": [str(package.folder / "tests")]}
    adapter = package.folder / "conformance" / "adapter.py"
    if adapter.exists():
        expected = str(adapter.with_name("xfail.toml"))
        runs["conformance"] = [*_SUITE, "--conformance-adapter", str(adapter), "--conformance-xfail", expected]
    for name, arguments in runs.items():
        report = out / f"{package.name}-{name}.xml"
        command = [python, "-m", "pytest", *arguments, f"--junitxml={report}", *extra]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)  # what is installed is tested, not what lies around
        code = subprocess.run(command, cwd=package.folder.parents[1], env=environment, check=False).returncode
        if code:
            raise ReleaseError(
                f"{package.name} {package.version} against {against}: expected its {name} to pass, "
                f"got {_failures(report) or [f'exit code {code}']}"
            )


def _failures(report: Path) -> list[str]:
    """The names of the tests that failed or could not be run."""
    if not report.exists():
        return []
    cases = ElementTree.parse(report).iter("testcase")
    return [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
