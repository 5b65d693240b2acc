"""Changelogs: one fragment a change, in `packages/P/changes`, gathered by towncrier when a version is released."""

from __future__ import annotations

import re
import subprocess
import sys

from releasing.workspace import Package, ReleaseError

KINDS = ("breaking", "added", "changed", "fixed", "removed")


def fragments(package: Package) -> list[str]:
    """Names of the fragments that wait for the next version."""
    folder = package.folder / "changes"
    return sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")


def section(package: Package) -> str | None:
    """What the changelog says of the present version, or None where it does not yet."""
    text = package.changelog.read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(str(package.version))} .*?(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return found.group(0) if found else None


def breaking_entries(package: Package) -> str:
    """Everything that is announced as breaking in the present version, written or waiting."""
    folder = package.folder / "changes"
    waiting = [(folder / name).read_text(encoding="utf-8") for name in fragments(package) if ".breaking." in name]
    written = re.search(r"^### Breaking\n(.*?)(?=^### |\Z)", section(package) or "", flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*waiting, written.group(1) if written else ""])


def check(package: Package) -> None:
    """Refuse a version of which the changelog says nothing.

    Raises:
        ReleaseError: neither fragments nor a section of the version, or both, or a fragment that is empty or unknown.
    """
    names, folder = fragments(package), package.folder / "changes"
    for name in sorted({path.name for path in folder.glob("*")} - {"README.md"}):
        if not re.fullmatch(rf"[\w+-]+\.({'|'.join(KINDS)})\.md", name):
            raise ReleaseError(
                f"{package.name}/changes: expected names such as +what.added.md, with one of {KINDS}, got {name!r}"
            )
        if not (folder / name).read_text(encoding="utf-8").strip():
            raise ReleaseError(f"{package.name}/changes: expected what a user should read, got nothing in {name!r}")
    written = section(package) is not None
    if written and names:
        raise ReleaseError(
            f"{package.name}/changes: expected none, since CHANGELOG.md has a section {package.version} that is not "
            f"tagged yet (move the texts there), got {names}"
        )
    if not written and not names:
        raise ReleaseError(
            f"{package.name}/changes: expected a fragment for each change since the last version, got none, and "
            f"CHANGELOG.md has no section {package.version}"
        )


def write(package: Package, *, draft: bool) -> str:
    """Gather the fragments under the present version, or show how that would read.

    Args:
        package: the package.
        draft: whether to leave files as they are.

    Returns:
        The section.

    Raises:
        ReleaseError: towncrier fails.
    """
    written = section(package)
    if written is not None:
        return written
    settings = package.folder.parents[1] / "towncrier.toml"
    command = [sys.executable, "-m", "towncrier", "build", "--config", str(settings), "--dir", str(package.folder)]
    command += ["--version", str(package.version), "--name", package.name, "--draft" if draft else "--yes"]
    result = subprocess.run(command, cwd=package.folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ReleaseError(f"towncrier: {result.stdout}{result.stderr}")
    return result.stdout if draft else str(section(package))
