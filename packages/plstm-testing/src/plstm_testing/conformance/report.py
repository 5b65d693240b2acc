"""What a run of the suite found, on one page."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..version import __version__
from .adapter import Adapter
from .lacks import lacks

# How pytest calls what the columns of the table count.
OUTCOMES = {"passed": "passed", "failed": "failed", "xfailed": "known to fail", "skipped": "not asked"}
KINDS_PER_GROUP = 3
WIDTH = 300


@dataclass(frozen=True)
class Outcome:
    """What became of one check.

    Attributes:
        group: of the check, such as "values".
        name: of the check within the group.
        outcome: one of `OUTCOMES`.
        message: why it failed, else empty.
    """

    group: str
    name: str
    outcome: str
    message: str = ""


def page(adapter: Adapter, outcomes: Iterable[Outcome]) -> str:
    """One page on a run: what was asked for, a table of groups, and for each kind of failure one example.

    Args:
        adapter: the backend.
        outcomes: of all checks.

    Returns:
        Markdown.

    Examples:
        >>> from plstm_testing.conformance.numpy_adapter import adapter
        >>> from plstm_testing.conformance.report import Outcome, page
        >>> text = page(adapter, [Outcome("values", "plstm_1d-auto-float64-packed", "passed")])
        >>> "| values | 1 | 0 | 0 | 0 |" in text
        True
    """
    found = list(outcomes)
    return "\n".join([*_heading(adapter), "", *_table(found), *_failures(found)]) + "\n"


def _heading(adapter: Adapter) -> Iterator[str]:
    yield f"# Conformance of {adapter.name}"
    yield ""
    yield f"plstm-testing {__version__}; dtypes {_listed(adapter.dtypes)}; devices {_listed(adapter.devices)}."
    for op in adapter.ops:
        forms = _listed(adapter.implementations.get(op, ()))
        yield f"* {op}: {'one form' if forms == 'none' else forms}"
    yield f"* modules: {_listed(sorted(one.__name__ for one in adapter.module_classes))}"
    yield f"* lacks, by its own account: {_listed(sorted(lacks(adapter)))}"


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "") or "none"


def _table(found: list[Outcome]) -> Iterator[str]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in found:
        counts[one.group][one.outcome] += 1
    yield f"| group | {' | '.join(OUTCOMES.values())} |"
    yield "|---|" + "---:|" * len(OUTCOMES)
    for group, by_outcome in counts.items():
        yield _row(group, by_outcome)
    yield _row("all", sum(counts.values(), Counter()))


def _row(group: str, counts: Counter[str]) -> str:
    return f"| {group} | {' | '.join(str(counts[outcome]) for outcome in OUTCOMES)} |"


def _failures(found: list[Outcome]) -> Iterator[str]:
    """Failures of one kind have the same message up to its numbers."""
    kinds: dict[str, dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for one in found:
        if one.outcome == "failed":
            kinds[one.group][re.sub(r"[\d.]+(e[+-]?\d+)?", "0", one.message)].append(one)
    if kinds:
        yield ""
        yield "Failures, one of each kind:"
        yield ""
    for group, by_message in kinds.items():
        largest = sorted(by_message.values(), key=len, reverse=True)
        for alike in largest[:KINDS_PER_GROUP]:
            first, others = alike[0], f" and {len(alike) - 1} more" if len(alike) > 1 else ""
            yield f"* test_{group}[{first.name}]{others}: {_short(first.message)}"
        rest = largest[KINDS_PER_GROUP:]
        if rest:
            yield f"* test_{group}: {sum(map(len, rest))} more, of {len(rest)} other kinds"


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= WIDTH else f"{line[:WIDTH]} ..."
