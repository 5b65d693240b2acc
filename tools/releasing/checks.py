"""What must hold before anything is built: a clean tree, one version, ranges that meet, a changelog, the public API."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import griffe
from packaging.version import Version

from releasing import changelog
from releasing.history import export, git, siblings, versions
from releasing.workspace import Package, ReleaseError, admits, packages

_DATACLASSES = ("dataclass", "dataclasses.dataclass", "frozen")


def check_clean(root: Path) -> None:
    """Refuse to release what is not committed.

    Raises:
        ReleaseError: the tree differs from its last commit.
    """
    changed = git(root, "status", "--porcelain").splitlines()
    if changed:
        raise ReleaseError("working tree: expected what is committed, got changes in " + ", ".join(changed[:5]))


def check_version(root: Path, package: Package) -> None:
    """Refuse versions that are not new.

    Raises:
        ReleaseError: the version is stated twice, is tagged, or is older than the last one.
    """
    if "version" in package.project:
        raise ReleaseError(f"{package.name}/pyproject.toml: expected the version in version.py alone, got it twice")
    tagged = versions(root, package.name)
    if tagged and package.version <= tagged[-1]:
        raise ReleaseError(
            f"{package.module}/version.py: expected above {tagged[-1]}, which is tagged, got {package.version}"
        )


def check_ranges(root: Path, package: Package) -> None:
    """Refuse ranges that leave out the workspace's own version of a sibling.

    A workspace resolver takes the sibling whatever the range says, so nothing else notices.

    Raises:
        ReleaseError: a range of this package, or a range of another one on it, does not admit what stands here.
    """
    known = packages(root)
    for other in known.values():
        for name, allowed in other.siblings(set(known)).items():
            concerned = package.name in (other.name, name)
            if concerned and not admits(allowed, known[name].version):
                raise ReleaseError(
                    f"{other.name}/pyproject.toml: expected a range of {name} that admits {known[name].version}, "
                    f"which it is tested with here, got {name}{allowed}"
                )


def check_siblings(root: Path, package: Package) -> None:
    """Refuse siblings that are not what their version was tagged as: users would get others than those tested here.

    Raises:
        ReleaseError: the sources of a sibling differ from the tag of its version.
    """
    for one in siblings(package):
        if one.version not in versions(root, one.name):
            continue
        stated = str(one.folder.relative_to(root) / "pyproject.toml"), str(one.sources.relative_to(root))
        changed = git(root, "diff", "--name-only", one.tag, "--", *stated).split()
        if changed:
            raise ReleaseError(
                f"{one.name}: expected the sources that are tagged as {one.version}, or a version above it that is "
                f"released first, got changes in {', '.join(changed[:5])}"
            )


def check_api(root: Path, package: Package) -> list[str]:
    """Compare the public API with the last tag.

    What is public stands in no module, class or name with a leading underscore. Whatever is removed or changed in a way
    that breaks callers needs two things: a version that says so (the first digit that is not zero is raised), and an
    entry of the changelog under "Breaking" that names it in backticks.

    Returns:
        One line for each waived change.

    Raises:
        ReleaseError: a change that breaks callers lacks one of the two.
    """
    tagged = versions(root, package.name)
    if not tagged:
        return []
    last = tagged[-1]
    # laid out from the tag: a worktree of git, as griffe makes one, stays behind when a check is stopped
    with tempfile.TemporaryDirectory() as place:
        earlier = export(root, package.name, last, Path(place))
        before = griffe.load(package.module, search_paths=[str(earlier.sources)], resolve_aliases=True)
        after = griffe.load(package.module, search_paths=[str(package.sources)], resolve_aliases=True)
        found = {_describe(breakage) for breakage in griffe.find_breaking_changes(before, after)}
        found |= set(_changed_fields(before, after))
    if not found:
        return []
    named = set(re.findall(r"`([^`]+)`", changelog.breaking_entries(package)))
    silent = sorted(text for path, text in found if not _is_named(path, named))
    if silent:
        raise ReleaseError(
            f"public API of {package.name} against {last}: expected an entry under Breaking in its changelog that "
            "names each of these in backticks, got none for\n  " + "\n  ".join(silent)
        )
    if not _says_breaking(last, package.version):
        raise ReleaseError(
            f"{package.module}/version.py: expected at least {_next_breaking(last)}, since the public API changed, got "
            f"{package.version}; changed are\n  " + "\n  ".join(sorted(text for _, text in found))
        )
    return sorted(text for _, text in found)


def _describe(breakage: griffe.Breakage) -> tuple[str, str]:
    path, old = breakage.obj.path, breakage.old_value
    parameter = f"({old.name})" if isinstance(old, griffe.Parameter) else ""
    return path, f"{path}{parameter}: {breakage.kind.value.lower()}"


def _changed_fields(
    before: griffe.Object | griffe.Alias, after: griffe.Object | griffe.Alias
) -> Iterator[tuple[str, str]]:
    """Fields of public dataclasses with another default, or that are new and have none; griffe looks at names only."""
    for name, old in before.members.items():
        new = after.members.get(name)
        if name.startswith("_"):
            continue
        if isinstance(old, griffe.Class) and isinstance(new, griffe.Class):
            if any(str(one.value).split("(")[0] in _DATACLASSES for one in new.decorators):
                yield from _changed_defaults(old, new)
            yield from _changed_fields(old, new)
        elif isinstance(old, griffe.Module) and isinstance(new, griffe.Module):
            yield from _changed_fields(old, new)


def _changed_defaults(old: griffe.Class, new: griffe.Class) -> Iterator[tuple[str, str]]:
    for name, field in new.members.items():
        if not isinstance(field, griffe.Attribute) or name.startswith("_") or "ClassVar" in str(field.annotation):
            continue
        known = old.members.get(name)
        if known is None and field.value is None and field.annotation is not None:
            yield field.path, f"{field.path}: a field without a default was added"
        elif isinstance(known, griffe.Attribute) and str(known.value) != str(field.value):
            yield field.path, f"{field.path}: the default {known.value} became {field.value}"


def _is_named(path: str, named: set[str]) -> bool:
    """Whether a name of the changelog is a path or its end: `Config.old_field`, `plstm_1d`."""
    return any(path == name or path.endswith(f".{name}") for name in named)


def _next_breaking(last: Version) -> Version:
    return Version(f"{last.major + 1}.0.0" if last.major else f"0.{last.minor + 1}.0")


def _says_breaking(last: Version, version: Version) -> bool:
    return version >= _next_breaking(last)
