"""What the workspace holds: its packages, their versions, and the ranges in which they stand on each other."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version


class ReleaseError(Exception):
    """A release that must not be made; the message says what to change."""


@dataclass(frozen=True)
class Package:
    """One package of the workspace.

    Attributes:
        folder: its folder, in the workspace or in the sources of a tag.
    """

    folder: Path

    @property
    def name(self) -> str:
        """The name under which it is published."""
        return self.folder.name

    @property
    def module(self) -> str:
        """The name under which it is imported."""
        return self.name.replace("-", "_")

    @property
    def sources(self) -> Path:
        """The folder of its sources."""
        return self.folder / "src"

    @cached_property
    def project(self) -> Mapping[str, Any]:
        """The table `project` of its pyproject.toml."""
        return tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    @cached_property
    def version(self) -> Version:
        """The version in its version.py."""
        place = self.sources / self.module / "version.py"
        found = re.search(r'^__version__ = "(.*)"$', place.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if found is None:
            raise ReleaseError(f'{place}: expected a line __version__ = "...", got none')
        return Version(found.group(1))

    @property
    def tag(self) -> str:
        """The tag of its present version."""
        return f"{self.name}-v{self.version}"

    @cached_property
    def changelog(self) -> Path:
        """Its changelog."""
        return self.folder / "CHANGELOG.md"

    def siblings(self, names: set[str]) -> dict[str, SpecifierSet]:
        """The ranges in which it accepts other packages of the workspace, those of its extras included.

        Args:
            names: the names of the packages of the workspace.

        Returns:
            A range for each that it names; all ranges at once, where several are stated.
        """
        stated = [*self.project.get("dependencies", ())]
        for extra in self.project.get("optional-dependencies", {}).values():
            stated += extra
        ranges: dict[str, SpecifierSet] = {}
        for requirement in map(Requirement, stated):
            if requirement.name in names:
                ranges[requirement.name] = ranges.get(requirement.name, SpecifierSet()) & requirement.specifier
        return ranges


def admits(allowed: SpecifierSet, version: Version) -> bool:
    """Whether a range takes a version; one that is only announced counts like any other."""
    return allowed.contains(version, prereleases=True)


def packages(root: Path) -> dict[str, Package]:
    """The packages in a workspace, or in the sources of a tag.

    Args:
        root: the folder above `packages`.

    Returns:
        The packages by name.
    """
    found = sorted(path.parent for path in (root / "packages").glob("*/pyproject.toml"))
    return {folder.name: Package(folder) for folder in found}


def find(root: Path, name: str) -> Package:
    """A package of the workspace by name.

    Raises:
        ReleaseError: if there is none.
    """
    known = packages(root)
    if name not in known:
        raise ReleaseError(f"package: expected one of {sorted(known)}, got {name!r}")
    return known[name]
