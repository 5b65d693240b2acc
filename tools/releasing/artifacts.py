"""Built distributions: that they can be built twice alike, and hold what they should and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from releasing.workspace import Package, ReleaseError

# Uncompressed wheels, in bytes; recordings are data.
LIMITS = {"plstm-golden": 5_000_000}
LIMIT = 2_000_000
# What a wheel may hold beside sources.
SUFFIXES = {".py", ".typed", ".md"}

# What an sdist may hold: a package's own folder, tests included, so that who builds from it can test it.
SOURCES = {
    *("src", "tests", "conformance", "changes", "docs", "examples", "tools"),
    *("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "PKG-INFO", ".gitignore"),
}


def build(package: Package, out: Path) -> Path:
    """Build the sdist, the wheel, and the wheel again from the sdist, without the workspace's sources.

    Args:
        package: the package.
        out: where the distributions are laid.

    Returns:
        The wheel.

    Raises:
        ReleaseError: a build fails, or the two wheels differ.
    """
    _uv("build", "--no-sources", "--sdist", "--out-dir", out, package.folder)
    _uv("build", "--no-sources", "--wheel", "--out-dir", out, package.folder)
    (sdist,) = out.glob(f"{package.module}-{package.version}.tar.gz")
    wheel = _wheel(out, package)
    again = out / "from-sdist"
    _uv("build", "--no-sources", "--wheel", "--out-dir", again, sdist)
    first, second = _members(wheel), _members(_wheel(again, package))
    if first != second:
        differing = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
        raise ReleaseError(
            f"{wheel.name}: expected the same from the sources and from the sdist, differing: {differing}"
        )
    return wheel


def check_contents(package: Package, wheel: Path) -> None:
    """Refuse wheels that lack something, or hold what nobody asked for.

    Raises:
        ReleaseError: a file is missing or stray, or the wheel is too large; or twine or check-wheel-contents object.
    """
    members = _members(wheel)
    info = f"{package.module}-{package.version}.dist-info"
    for needed in (f"{package.module}/py.typed", f"{info}/licenses/LICENSE", f"{package.module}/version.py"):
        if needed not in members:
            raise ReleaseError(f"{wheel.name}: expected {needed}, got none")
    data = {".json", ".npz", ".safetensors"} if package.name in LIMITS else set()
    for name in members:
        inside = name.startswith(f"{package.module}/") and Path(name).suffix in SUFFIXES | data
        if not (inside or name.startswith(f"{info}/")) or re.search(r"(^|/)(tests?/|test_[^/]*$|conftest\.py$)", name):
            raise ReleaseError(f"{wheel.name}: expected sources, types and documents of {package.module}, got {name}")
    size, limit = sum(map(len, members.values())), LIMITS.get(package.name, LIMIT)
    if size > limit:
        raise ReleaseError(f"{wheel.name}: expected at most {limit} bytes, got {size}")
    for tool, *arguments in (("twine", "check", "--strict"), ("check_wheel_contents",)):
        _run([sys.executable, "-m", tool, *arguments, str(wheel)])


def check_sdist(package: Package, out: Path) -> None:
    """Refuse an sdist with files that belong to no package, or one that is too large.

    Raises:
        ReleaseError: saying what is stray, or how large it is; or twine objects.
    """
    (sdist,) = out.glob(f"{package.module}-{package.version}.tar.gz")
    with tarfile.open(sdist) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
    for file in files:
        top = file.name.split("/")[1]
        if top not in SOURCES:
            raise ReleaseError(f"{sdist.name}: expected nothing beside {sorted(SOURCES)}, got {top}")
    size, limit = sum(file.size for file in files), 2 * LIMITS.get(package.name, LIMIT)
    if size > limit:
        raise ReleaseError(f"{sdist.name}: expected at most {limit} bytes, got {size}")
    _run([sys.executable, "-m", "twine", "check", "--strict", str(sdist)])


def _wheel(folder: Path, package: Package) -> Path:
    (wheel,) = folder.glob(f"{package.module}-{package.version}-*.whl")
    return wheel


def _members(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _uv(*arguments: object) -> None:
    _run(["uv", "--quiet", *map(str, arguments)])


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ReleaseError(f"{' '.join(command)}:\n{result.stdout}{result.stderr}")
