"""Sessions of the workspace: lint, types, tests per package, conformance per backend, packages alone, and a demo.

    nox                              everything but the demo
    nox -s "tests(plstm-torch)"      one package
    nox -s "conformance(torch)"      one backend against the shared suite
    nox -s train -- digits           the README's first command

Every session has an environment of its own; a conformance environment holds one backend only.
"""

import os
import re
import textwrap
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "tests", "conformance", "alone"]
nox.options.error_on_missing_interpreters = True

ROOT = Path(__file__).parent
# Each package with the packages of this workspace it stands on, dependencies first.
REQUIRES = {
    "plstm-config": [],
    "plstm-testing": ["plstm-config"],
    "plstm-jax": ["plstm-config", "plstm-testing"],
    "plstm-torch": ["plstm-config", "plstm-testing"],
}
BACKENDS = {"torch": "plstm-torch", "jax": "plstm-jax"}
FRAMEWORKS = {"torch", "jax", "flax"}
FRAMEWORKS_OF = {"plstm-config": set(), "plstm-testing": set(), "plstm-jax": {"jax"}, "plstm-torch": {"torch"}}
EXTRAS_FOR_TESTS = {"plstm-testing": "[conformance,datasets]", "plstm-torch": "[train,pyg]"}
# Tests hand over what is wrong on purpose, and take apart what may be of several types.
NOT_IN_TESTS = "arg-type attr-defined call-arg call-overload dict-item index list-item operator union-attr valid-type"
RELAXED_FOR_TESTS = (
    *("--allow-untyped-defs", "--allow-incomplete-defs", "--no-check-untyped-defs", "--ignore-missing-imports"),
    *(f"--disable-error-code={code}" for code in NOT_IN_TESTS.split()),
)
PROJECT = nox.project.load_toml("pyproject.toml")

PACKAGE_PARAMS = [nox.param(name, id=name) for name in REQUIRES]
BACKEND_PARAMS = [nox.param(name, id=name) for name in BACKENDS]

# uv does not read pip's settings: a local folder of wheels given to pip is given to uv as well.
if "PIP_FIND_LINKS" in os.environ:
    os.environ.setdefault("UV_FIND_LINKS", os.environ["PIP_FIND_LINKS"])


def install(session: nox.Session, *arguments: str) -> None:
    # compiled once here rather than in each of the many processes that the tests start
    session.install("--constraint", str(ROOT / "constraints.txt"), "--compile-bytecode", *arguments)


def editable(*packages: str, extras: dict[str, str] | None = None) -> list[str]:
    extras = extras or {}
    return [part for name in packages for part in ("--editable", f"{ROOT / 'packages' / name}{extras.get(name, '')}")]


def group(name: str) -> list[str]:
    return nox.project.dependency_groups(PROJECT, name)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    install(session, *group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types: strict on every public signature."""
    install(session, *group("types"), *editable(*REQUIRES, extras=EXTRAS_FOR_TESTS))
    for name in REQUIRES:
        session.run("mypy", str(ROOT / "packages" / name / "src"))
    for folder in sorted(ROOT.glob("packages/*/conformance")):
        session.run("mypy", str(folder))
    for name in REQUIRES:
        folder = ROOT / "packages" / name / "tests"
        session.run("mypy", *RELAXED_FOR_TESTS, str(folder), env={"MYPYPATH": str(folder)})


@nox.session
@nox.parametrize("package", PACKAGE_PARAMS)
def tests(session: nox.Session, package: str) -> None:
    """Run one package's own tests."""
    install(session, *group("test"), *editable(*REQUIRES[package], package, extras=EXTRAS_FOR_TESTS))
    session.run(
        "pytest", f"packages/{package}/tests", "--numprocesses", "2", *session.posargs, env={"OMP_NUM_THREADS": "1"}
    )


@nox.session
@nox.parametrize("backend", BACKEND_PARAMS)
def conformance(session: nox.Session, backend: str) -> None:
    """Run the shared suite against one backend, in an environment without any other."""
    package = BACKENDS[backend]
    install(
        session,
        "pytest-xdist",
        *editable(*REQUIRES[package], package, extras={"plstm-testing": "[conformance]"}),
    )
    folder = ROOT / "packages" / package / "conformance"
    session.run(
        *("pytest", "-p", "plstm_testing.conformance.plugin", "--pyargs", "plstm_testing.conformance.suite"),
        *("--conformance-adapter", str(folder / "adapter.py"), "--conformance-xfail", str(folder / "xfail.toml")),
        *("--numprocesses", "2", *session.posargs),
        env={"OMP_NUM_THREADS": "1"},
    )


@nox.session
@nox.parametrize("package", PACKAGE_PARAMS)
def alone(session: nox.Session, package: str) -> None:
    """Install one package's wheel into an empty environment and run its README example there."""
    scratch = Path(session.create_tmp())
    own = [*REQUIRES[package], package]
    for name in own:
        sources = str(ROOT / "packages" / name)
        session.run("uv", "build", "--wheel", "--quiet", "--out-dir", str(scratch / "wheels"), sources)
    fresh = [part for name in own for part in ("--reinstall-package", name)]
    install(session, "--find-links", str(scratch / "wheels"), *fresh, package)
    foreign = sorted(FRAMEWORKS - FRAMEWORKS_OF[package])
    module = package.replace("-", "_")
    session.run("python", "-c", foreign_check(module, foreign))
    session.chdir(scratch)  # away from the sources: what runs is what the wheel holds
    session.run("python", "-c", readme_example(ROOT / "packages" / package / "README.md"))


def foreign_check(module: str, foreign: list[str]) -> str:
    return textwrap.dedent(
        f"""
        import importlib.util, sys
        import {module}
        found = [name for name in {foreign!r} if importlib.util.find_spec(name) or name in sys.modules]
        sys.exit(f"{module} brought along {{found}}" if found else 0)
        """
    )


def readme_example(readme: Path) -> str:
    example = re.search(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    if example is None:
        raise ValueError(f"{readme} has no python example")
    return example.group(1)


@nox.session
def train(session: nox.Session) -> None:
    """Train on real data; everything after `--` goes to `plstm-torch train` (default: digits)."""
    install(session, *editable(*REQUIRES["plstm-torch"], "plstm-torch", extras={"plstm-torch": "[train,pyg]"}))
    session.run("plstm-torch", "train", *(session.posargs or ["digits"]))
