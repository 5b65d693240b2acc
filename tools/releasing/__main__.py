"""The steps of a release as commands: `check`, `build`, `plan`, `test`, `finish`, which the session `release` runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from releasing import artifacts, changelog, checks
from releasing.history import companions, dependents, git, sibling_sets, versions
from releasing.tested import run_tests
from releasing.workspace import Package, ReleaseError, find

ROOT = Path(__file__).parents[2]


def check(package: Package, root: Path) -> None:
    """Everything that needs no build."""
    checks.check_clean(root)
    checks.check_version(root, package)
    checks.check_ranges(root, package)
    checks.check_siblings(root, package)
    changelog.check(package)
    if not versions(root, package.name):
        print(f"no version of {package.name} is tagged here: its API is compared with nothing")
    for line in checks.check_api(root, package):
        print(f"announced as breaking: {line}")


def build(package: Package, root: Path, out: Path) -> None:
    """The distributions, compared and looked through."""
    del root
    wheel = artifacts.build(package, out)
    artifacts.check_contents(package, wheel)
    artifacts.check_sdist(package, out)
    print(wheel)


def plan(package: Package, root: Path, out: Path) -> None:
    """Which environments a release is tested in, as JSON: siblings by folder, and last tagged dependents."""
    sets = sibling_sets(root, package, out / "sources")
    admitted, left_out = dependents(root, package, out / "sources")
    for line in left_out:
        print(line)
    described = {
        "siblings": {which: [str(one.folder) for one in chosen] for which, chosen in sets.items()},
        "dependents": [
            {
                "folder": str(one.folder),
                "siblings": [str(other.folder) for other in companions(root, one, package, out / "sources")],
            }
            for one in admitted
        ],
    }
    (out / "plan.json").write_text(json.dumps(described, indent=2), encoding="utf-8")


def finish(package: Package, root: Path, *, dry_run: bool) -> None:
    """The changelog, a commit of it, and the tag; nothing that changed since the checks goes along."""
    if not dry_run:
        checks.check_clean(root)
    print(changelog.write(package, draft=dry_run))
    if dry_run:
        print(f"dry run: {package.tag} is not tagged")
        return
    if git(root, "status", "--porcelain"):
        git(root, "add", "--all", str(package.changelog), str(package.folder / "changes"))
        git(root, "commit", "--message", f"Release {package.name} {package.version}")
    git(root, "tag", "--annotate", package.tag, "--message", f"{package.name} {package.version}")
    print(f"tagged {package.tag}; push it to publish: git push origin {package.tag}")


def main(arguments: list[str] | None = None) -> int:
    """Run one step.

    Args:
        arguments: the command line without the program; that of the process if None.

    Returns:
        0, or 1 where the release must not be made; the reason is printed.
    """
    parser = argparse.ArgumentParser(prog="python -m releasing", description=__doc__)
    parser.add_argument("step", choices=["check", "build", "plan", "test", "finish"])
    parser.add_argument("package")
    parser.add_argument("--root", type=Path, default=ROOT, help="the workspace (default: the one of this file)")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="where build and plan write (default: dist)")
    parser.add_argument("--python", default=sys.executable, help="of the environment that test uses")
    parser.add_argument("--against", default="what is installed", help="what test tests against, for its message")
    parser.add_argument("--dry-run", action="store_true", help="write and tag nothing")
    given, extra = parser.parse_known_args(arguments)
    if extra and given.step != "test":  # a dry run that is not understood must not be a release
        parser.error(f"arguments: expected none that only pytest knows, got {' '.join(extra)}")
    try:
        package, root = find(given.root, given.package), given.root
        if given.step == "check":
            check(package, root)
        elif given.step == "finish":
            finish(package, root, dry_run=given.dry_run)
        else:
            given.out.mkdir(parents=True, exist_ok=True)
            out = given.out.resolve()
            if given.step == "test":
                run_tests(package, given.python, given.against, out, extra)
            else:
                {"build": build, "plan": plan}[given.step](package, root, out)
    except ReleaseError as error:
        print(f"not released: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
