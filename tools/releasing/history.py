"""What was released: tags, the sources behind them, and which versions of which packages may meet."""

from __future__ import annotations

import io
import itertools
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from packaging.version import InvalidVersion, Version

from releasing.workspace import Package, ReleaseError, admits, packages


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
    known = {one.name for one in newest}
    choices: list[list[Version]] = []
    for one in newest:
        allowed = package.siblings(known).get(one.name)
        admitted = [version for version in versions(root, one.name) if allowed is None or admits(allowed, version)]
        choices.append(sorted({*admitted, one.version}))
    for chosen in itertools.product(*choices):
        oldest = [
            one if version == one.version else export(root, one.name, version, into)
            for one, version in zip(newest, chosen, strict=True)
        ]
        if _go_together([package, *oldest]):
            return {"newest": newest} if oldest == newest else {"oldest": oldest, "newest": newest}
    return {"newest": newest}


def companions(root: Path, dependent: Package, package: Package, into: Path) -> list[Package]:
    """What a resolver would install with a tagged dependent and the new version of a package that it stands on.

    Args:
        root: the workspace.
        dependent: a package in the sources of its tag.
        package: the package that is about to be released.
        into: where the sources of tags may be laid.

    Returns:
        The dependent's other siblings, each in the newest tagged version that both admit.
    """
    found = []
    for own in siblings(dependent):
        if own.name == package.name:
            continue
        ranges = [one.siblings({own.name}).get(own.name) for one in (dependent, package)]
        admitted = [
            version
            for version in versions(root, own.name)
            if all(allowed is None or admits(allowed, version) for allowed in ranges)
        ]
        found.append(export(root, own.name, admitted[-1], into) if admitted else own)
    return found


def _go_together(chosen: Sequence[Package]) -> bool:
    """Whether the range of each on every other admits it."""
    by_name = {one.name: one for one in chosen}
    return all(
        admits(allowed, by_name[name].version) for one in chosen for name, allowed in one.siblings(set(by_name)).items()
    )


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
        if admits(allowed, package.version):
            admitted.append(last)
        else:
            left_out.append(f"{name} {last.version} wants {package.name}{allowed}, and keeps the version it has")
    return admitted, left_out
