"""What was released: tags, the sources behind them, and which versions of which packages may meet."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from packaging.version import InvalidVersion, Version

from releasing.workspace import Package, ReleaseError, packages


def git(root: Path, *arguments: str) -> str:
    """Run git and return what it prints.

    Raises:
        ReleaseError: if it fails, with its own words.
    """
    result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ReleaseError(f"git {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


def versions(root: Path, name: str) -> list[Version]:
    """The tagged versions of a package, oldest first."""
    found = []
    for tag in git(root, "tag", "--list", f"{name}-v*").split():
        try:
            found.append(Version(tag.removeprefix(f"{name}-v")))
        except InvalidVersion as error:
            raise ReleaseError(f"tag: expected {name}-v and a version, got {tag!r}") from error
    return sorted(found)


def export(root: Path, name: str, version: Version, into: Path) -> Package:
    """Lay out the sources of the whole workspace as they were when a version of a package was tagged.

    Args:
        root: the workspace.
        name: the package.
        version: one of its tagged versions.
        into: where to lay them, in a folder of the tag's name; what stands there already is used.

    Returns:
        The package in these sources.
    """
    tag = f"{name}-v{version}"
    place = into / tag
    if not place.exists():
        archive = subprocess.run(["git", "archive", tag], cwd=root, capture_output=True, check=False)
        if archive.returncode:
            raise ReleaseError(f"git archive {tag}: {archive.stderr.decode().strip()}")
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(place, filter="data")
    return packages(place)[name]


def siblings(package: Package) -> list[Package]:
    """The packages that a package stands on, in the sources it stands in: its siblings, theirs, and so on."""
    around = packages(package.folder.parents[1])
    found: dict[str, Package] = {}
    waiting = [package]
    while waiting:
        for name in waiting.pop().siblings(set(around)):
            if name not in found and name != package.name:
                found[name] = around[name]
                waiting.append(around[name])
    return list(found.values())


def sibling_sets(root: Path, package: Package, into: Path) -> dict[str, list[Package]]:
    """The oldest and the newest siblings that the ranges of a package, and of its siblings, allow.

    Args:
        root: the workspace; what stands in it counts as a version beside those that are tagged.
        package: a package of the workspace.
        into: where the sources of tags may be laid.

    Returns:
        "newest", and "oldest" where it is another set.
    """
    newest = siblings(package)
    names = {one.name for one in newest}
    oldest = []
    for one in newest:
        ranges = [other.siblings(names).get(one.name) for other in [package, *newest]]
        admitted = [
            version
            for version in versions(root, one.name)
            if all(allowed is None or allowed.contains(version, prereleases=True) for allowed in ranges)
        ]
        first = min([*admitted, one.version])
        oldest.append(one if first == one.version else export(root, one.name, first, into))
    return {"newest": newest} if oldest == newest else {"oldest": oldest, "newest": newest}


def dependents(root: Path, package: Package, into: Path) -> tuple[list[Package], list[str]]:
    """The last tagged versions of the packages that stand on a package.

    Args:
        root: the workspace.
        package: the package that is about to be released.
        into: where the sources of tags may be laid.

    Returns:
        Those whose ranges admit the version that is about to be released, in their tagged sources, and a line for each
        that is left out because its range does not.
    """
    admitted, left_out = [], []
    known = packages(root)
    for name in known:
        tagged = versions(root, name)
        if name == package.name or not tagged:
            continue
        last = export(root, name, tagged[-1], into)
        allowed = last.siblings(set(known)).get(package.name)
        if allowed is None:
            continue
        if allowed.contains(package.version, prereleases=True):
            admitted.append(last)
        else:
            left_out.append(f"{name} {last.version} wants {package.name}{allowed}, and keeps the version it has")
    return admitted, left_out
