"""Pytest plugin of the suite: its options, its checks, the expected failures of a backend, and the report of a run."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .adapter import Adapter, load_adapter
from .checks import Check, all_checks
from .compiled import Thorough
from .lacks import NotAskedError
from .report import OUTCOMES, Outcome, page

_ADAPTER = pytest.StashKey[Adapter]()
_CHECKS = pytest.StashKey[dict[str, list[Check]]]()
_SUITE = "plstm_testing.conformance.suite"


@dataclass(frozen=True)
class ExpectedFailure:
    """Checks that are known to fail.

    Attributes:
        test: name of a test as pytest shows it, such as "test_values[plstm_1d-recurrent-float16-odd_length]"; a star
            stands for any text.
        reason: why they fail.
    """

    test: str
    reason: str

    def matches(self, name: str) -> bool:
        """Whether this entry speaks of the test `name`."""
        return re.fullmatch(".*".join(map(re.escape, self.test.split("*"))), name) is not None


def read_expected_failures(path: str | Path) -> list[ExpectedFailure]:
    """Read a file of expected failures.

    Args:
        path: TOML file with tables ``[[xfail]]``, each with the keys `test` and `reason`.

    Returns:
        The entries.

    Raises:
        ValueError: if the file is missing, is no TOML, or an entry lacks a reason.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"conformance xfail: expected a TOML file, got {str(path)!r}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"conformance xfail: expected TOML, got {str(path)!r}: {error}") from error
    entries = content.pop("xfail", [])
    if content:
        raise ValueError(f"conformance xfail: expected tables [[xfail]] only in {str(path)!r}, got {sorted(content)}")
    for entry in entries:
        if set(entry) != {"test", "reason"} or not all(isinstance(text, str) and text for text in entry.values()):
            raise ValueError(f"conformance xfail: expected a test and a reason in {str(path)!r}, got {entry}")
    return [ExpectedFailure(**entry) for entry in entries]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options."""
    group = parser.getgroup("conformance", "pLSTM conformance suite")
    group.addoption("--conformance-adapter", help="Python file that defines `adapter`")
    group.addoption(
        "--conformance-thorough",
        action="store_true",
        help="ask backends that compile for every form and dtype of every case, as others are",
    )
    group.addoption("--conformance-xfail", help="TOML file of expected failures, each with a reason")
    group.addoption("--conformance-report", help="file for the report of the run, one page of Markdown")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Load the adapter, and let the report stand for the tracebacks unless some style of them is asked for."""
    path = config.getoption("--conformance-adapter")
    if path is None:
        raise pytest.UsageError("the conformance suite needs --conformance-adapter FILE")
    try:
        adapter = load_adapter(path)
        thorough = config.getoption("--conformance-thorough")
        config.stash[_ADAPTER] = adapter
        config.stash[_CHECKS] = all_checks(Thorough(adapter) if thorough else adapter)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    if config.option.tbstyle == "auto":
        config.option.tbstyle = "no"
        config.option.reportchars = config.option.reportchars.replace("fE", "")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test function of the suite the checks of its group."""
    if metafunc.module.__name__ == _SUITE and "check" in metafunc.fixturenames:
        group = metafunc.function.__name__.removeprefix("test_")
        checks = metafunc.config.stash[_CHECKS][group]
        metafunc.parametrize("check", checks, ids=[check.name for check in checks])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A check of what the backend says that it lacks counts as not asked for."""
    try:
        yield
    except NotAskedError as reason:
        pytest.skip(str(reason))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark expected failures strictly: one that passes, or that names no test at all, is stale and fails the run."""
    # groups in which nothing is asked for
    items[:] = [item for item in items if not (_of_suite(item) and item.name.endswith("[NOTSET]"))]
    path = config.getoption("--conformance-xfail")
    if path is None:
        return
    try:
        entries = read_expected_failures(path)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    for entry in entries:
        matched = [item for item in items if entry.matches(item.name)]
        # a run of single tests by their ids does not see the others
        if not matched and not any("::" in argument for argument in config.args):
            raise pytest.UsageError(f"conformance xfail: no test is named {entry.test!r} (reason: {entry.reason})")
        for item in matched:
            item.add_marker(pytest.mark.xfail(reason=entry.reason, strict=True))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the report, and write it where asked to."""
    reports = [(report, outcome) for outcome in OUTCOMES for report in terminalreporter.stats.get(outcome, ())]
    found = [_outcome(report, outcome) for report, outcome in reports if _of_suite(report)]
    if not found:
        return
    groups = [*config.stash[_CHECKS]]
    found.sort(key=lambda one: groups.index(one.group))
    text = page(config.stash[_ADAPTER], found)
    path = config.getoption("--conformance-report")
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    terminalreporter.section("conformance")
    terminalreporter.write_line(text)
    if any(one.outcome == "failed" for one in found):
        terminalreporter.write_line("--tb=short shows where, -rf names all, -k NAME runs one.")


def _of_suite(test: Any) -> bool:
    """Whether an item or report is of the suite, beside which a backend may run tests of its own."""
    return Path(test.location[0]).parts[-2:] == ("conformance", "suite.py")


def _outcome(report: Any, outcome: str) -> Outcome:
    group, _, name = report.nodeid.rpartition("::")[2].removeprefix("test_").partition("[")
    return Outcome(group, name.removesuffix("]"), outcome, _message(report.longrepr) if outcome == "failed" else "")


def _message(failure: Any) -> str:
    """Of an exception what it says, of a stale expectation its reason."""
    crash = getattr(failure, "reprcrash", None)
    return str(failure if crash is None else crash.message).removeprefix("AssertionError: ")
