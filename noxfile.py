"""Sessions of the workspace: lint, types, tests per package, conformance per backend, packages alone, and a demo.

    nox                              everything but the demo
    nox -s "tests(plstm-torch)"      one package
    nox -s "conformance(torch)"      one backend against the shared suite
    nox -s portability               every backend reads what the others write
    nox -s triton                    the Triton kernels, without a GPU
    nox -s gpu                       the same on a GPU: not part of the default set
    nox -s train -- digits           the README's first command
    nox -s bench                     ops and layers beside their peers: on a machine that does nothing else
    nox -s fuzz -- --minutes 20      drawn inputs, for as long as asked; no default session either

Every session has an environment of its own; a conformance environment holds one backend only.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Mapping
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "tests", "conformance", "alone", "portability", "tooling"]
# interpreters that are missing are listed as skipped: `newest` asks for several
nox.options.error_on_missing_interpreters = False

ROOT = Path(__file__).parent
# Each package with the packages of this workspace it stands on, dependencies first.
REQUIRES = {
    "plstm-config": [],
    "plstm-golden": [],
    "plstm-native": [],
    "plstm-testing": ["plstm-config"],
    "plstm-jax": ["plstm-config", "plstm-native", "plstm-testing"],
    "plstm-torch": ["plstm-config", "plstm-native", "plstm-testing"],
    "plstm-nnx": ["plstm-config", "plstm-native", "plstm-testing", "plstm-jax"],
    "plstm-linen": ["plstm-config", "plstm-native", "plstm-testing", "plstm-jax"],
}
BACKENDS = {"torch": "plstm-torch", "jax": "plstm-jax", "nnx": "plstm-nnx", "linen": "plstm-linen"}
FRAMEWORKS = {"torch", "jax", "flax"}
FRAMEWORKS_OF = {
    "plstm-config": set(),
    "plstm-golden": set(),
    "plstm-native": set(),
    "plstm-testing": set(),
    "plstm-jax": {"jax"},
    "plstm-torch": {"torch"},
    "plstm-nnx": {"jax", "flax"},
    "plstm-linen": {"jax", "flax"},
}
# The three JAX packages compute with the same formulas, and most of a check is compiling them. plstm-jax is asked for
# every option of every layer; nnx and linen, which hold parameters and hand on what comes with the input, for the rest.
LEFT_TO_SIBLINGS = {
    "plstm-jax": "not (test_models or test_stepped_layers or test_packed_layers)",
    "plstm-nnx": "not test_layers",
    "plstm-linen": "not test_layers",
}
EXTRAS_FOR_TESTS = {"plstm-testing": "[conformance,datasets]", "plstm-torch": "[train,pyg,hf,onnx]"}
# timm asks for torchvision, whose wheels pin one build of torch, on registries one with CUDA: both are installed
# without what they depend on, which is there (timm needs torch, huggingface_hub, safetensors and pyyaml of it).
WITHOUT_DEPENDENCIES = {"plstm-torch": ["timm>=1.0.26", "torchvision"]}
# Tests hand over what is wrong on purpose, and take apart what may be of several types.
NOT_IN_TESTS = (
    "arg-type attr-defined call-arg call-overload comparison-overlap dict-item index list-item operator return-value "
    "union-attr valid-type var-annotated"
)
RELAXED_FOR_TESTS = (
    *("--allow-untyped-defs", "--allow-incomplete-defs", "--no-check-untyped-defs", "--ignore-missing-imports"),
    *(f"--disable-error-code={code}" for code in NOT_IN_TESTS.split()),
)
PROJECT = nox.project.load_toml("pyproject.toml")
# The first is where everything else runs, too.
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# A test runs each program once, so what XLA spends on making it fast is lost: more than half of the time of the JAX
# packages' tests. The lowest and the tested jaxlib know these flags (an unknown one ends the process); `newest` goes
# without, and so does `release`, to compile as users do.
QUICK_XLA = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
}

PACKAGE_PARAMS = [nox.param(name, id=name) for name in REQUIRES]
BACKEND_PARAMS = [nox.param(name, id=name) for name in BACKENDS]

# Tests start many processes: what the first of them compiles of installed packages is kept for the others, also where
# the machine's settings say otherwise. Compiling everything at once took half a minute for each environment.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# uv does not read pip's settings: a local folder of wheels given to pip is given to uv as well.
if "PIP_FIND_LINKS" in os.environ:
    os.environ.setdefault("UV_FIND_LINKS", os.environ["PIP_FIND_LINKS"])


def install(session: nox.Session, *arguments: str) -> None:
    session.install("--constraint", str(ROOT / "constraints.txt"), *arguments)


def install_alone(session: nox.Session, package: str) -> None:
    """Install what the tests of a package use, and whose own dependencies cannot be met."""
    if package in WITHOUT_DEPENDENCIES:
        install(session, "--no-deps", *WITHOUT_DEPENDENCIES[package])


def editable(*packages: str, extras: dict[str, str] | None = None) -> list[str]:
    extras = extras or {}
    return [part for name in packages for part in ("--editable", f"{ROOT / 'packages' / name}{extras.get(name, '')}")]


def for_tests(package: str) -> list[str]:
    """What is installed from the workspace to test a package: the suite needs the recordings."""
    own = [*REQUIRES[package], package]
    return ["plstm-golden", *own] if "plstm-testing" in own else own


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
    install(session, *group("types"), *group("test"), *group("release"), *editable(*REQUIRES, extras=EXTRAS_FOR_TESTS))
    for name in REQUIRES:
        session.run("mypy", str(ROOT / "packages" / name / "src"))
    session.run("mypy", "tools/releasing", env={"MYPYPATH": "tools"})
    for folder in sorted(ROOT.glob("packages/*/conformance")):
        session.run("mypy", str(folder))
    for name in REQUIRES:
        folder = ROOT / "packages" / name / "tests"
        session.run("mypy", *RELAXED_FOR_TESTS, str(folder), env={"MYPYPATH": str(folder)})


@nox.session
@nox.parametrize("package", PACKAGE_PARAMS)
def tests(session: nox.Session, package: str) -> None:
    """Run one package's own tests."""
    install(session, *group("test"), *editable(*for_tests(package), extras=EXTRAS_FOR_TESTS))
    install_alone(session, package)
    run_tests(session, package, QUICK_XLA)


def run_tests(session: nox.Session, package: str, environment: Mapping[str, str] = ONE_THREAD) -> None:
    pytest = ("pytest", f"packages/{package}/tests", "--numprocesses", "2", "--dist", "worksteal")
    session.run(*pytest, *session.posargs, env={**ONE_THREAD, **environment})


@nox.session
@nox.parametrize("backend", BACKEND_PARAMS)
def conformance(session: nox.Session, backend: str) -> None:
    """Run the shared suite against one backend, in an environment without any other."""
    package = BACKENDS[backend]
    install(
        session,
        "pytest-xdist",
        *editable(*for_tests(package), extras={"plstm-testing": "[conformance]"}),
    )
    run_suite(session, package, QUICK_XLA)


def run_suite(session: nox.Session, package: str, environment: Mapping[str, str] = ONE_THREAD) -> None:
    """The suite against a backend, and against its native kernels where it has any."""
    folder = ROOT / "packages" / package / "conformance"
    chosen = ("-k", LEFT_TO_SIBLINGS[package]) if package in LEFT_TO_SIBLINGS else ()
    for kind, part in (("", chosen), ("native_", ("-k", "native"))):
        if not (folder / f"{kind}adapter.py").exists():
            continue
        adapter, known = folder / f"{kind}adapter.py", folder / f"{kind}xfail.toml"
        session.run(
            *("pytest", "-p", "plstm_testing.conformance.plugin", "--pyargs", "plstm_testing.conformance.suite"),
            *("--conformance-adapter", str(adapter), "--conformance-xfail", str(known)),
            *(*part, "--numprocesses", "2", "--dist", "worksteal", *session.posargs),
            env={**ONE_THREAD, **environment},
        )


@nox.session
def portability(session: nox.Session) -> None:
    """Hand weights from backend to backend, with all of them in one environment."""
    packages = ["plstm-golden", *REQUIRES["plstm-nnx"], "plstm-torch", "plstm-nnx", "plstm-linen"]
    install(session, *group("test"), *editable(*packages))
    session.run("pytest", "tests/portability", "--numprocesses", "2", *session.posargs, env=ONE_THREAD | QUICK_XLA)


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


@nox.session(python=PYTHONS[0])
@nox.parametrize("package", PACKAGE_PARAMS)
def lowest(session: nox.Session, package: str) -> None:
    """Run one package's tests, and the suite, with the lowest versions that it allows, really installed."""
    can_install_torch(session, package, resolution="lowest-direct")
    session.install("--resolution", "lowest-direct", *editable(*for_tests(package), extras=EXTRAS_FOR_TESTS))
    session.install(*group("test"))  # leaves what is installed as it is
    install_alone(session, package)
    run_all_tests(session, package, QUICK_XLA)


@nox.session(python=PYTHONS[1:])
@nox.parametrize("package", PACKAGE_PARAMS)
def newest(session: nox.Session, package: str) -> None:
    """Run one package's tests, and the suite, with the newest versions of everything on a newer Python."""
    can_install_torch(session, package, resolution="highest")
    session.install("--upgrade", *group("test"), *editable(*for_tests(package), extras=EXTRAS_FOR_TESTS))
    install_alone(session, package)
    run_all_tests(session, package)


def can_install_torch(session: nox.Session, package: str, resolution: str) -> None:
    """Leave a session where torch would bring gigabytes of CUDA; nox lists it as skipped, with the reason."""
    if "torch" not in FRAMEWORKS_OF[package] or os.environ.get("UV_TORCH_BACKEND"):
        return  # UV_TORCH_BACKEND=cpu lets uv take CPU builds from PyTorch's own index
    place = editable(*for_tests(package), extras=EXTRAS_FOR_TESTS)
    command = ("uv", "pip", "install", "--dry-run", "--resolution", resolution, *place)
    found = session.run(*command, silent=True, success_codes=[0, 1], stderr=subprocess.STDOUT)
    if "nvidia" in str(found) or "cuda" in str(found):
        session.skip(
            f"{package}: no CPU build of torch for Python {session.python}; set UV_TORCH_BACKEND=cpu to fetch it"
        )


def run_all_tests(session: nox.Session, package: str, environment: Mapping[str, str] = ONE_THREAD) -> None:
    """A package's tests, and the suite where it is a backend."""
    run_tests(session, package, environment)
    if package in BACKENDS.values():
        run_suite(session, package, environment)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site under build/site, strictly and offline, and run every block of its pages."""
    backends = [name for name in REQUIRES if name != "plstm-golden"]
    install(session, *group("docs"), *editable("plstm-golden", *backends, extras=EXTRAS_FOR_TESTS))
    session.run("python", "-m", "documenting", "build/docs", env={"PYTHONPATH": str(ROOT / "tools")})
    session.run("zensical", "build", "--strict", "--config-file", "mkdocs.yml")
    pytest = ("pytest", "docs", "--numprocesses", "2", "--dist", "loadfile")
    session.run(*pytest, *session.posargs, env=ONE_THREAD | QUICK_XLA)


@nox.session
def tooling(session: nox.Session) -> None:
    """Test the tools of releases, in clones with tags."""
    install(session, *group("test"), *group("release"), *editable("plstm-config"))
    session.run("pytest", "tools/tests", *session.posargs, env={"PYTHONPATH": str(ROOT / "tools")})


@nox.session
@nox.parametrize("package", PACKAGE_PARAMS)
def release(session: nox.Session, package: str) -> None:
    """Check, build, test, write the changelog and tag one package; with `-- --dry-run` write and tag nothing."""
    if session.posargs not in ([], ["--dry-run"]):
        session.error(f"arguments: expected none or --dry-run, got {' '.join(session.posargs)}")
    install(session, *group("release"))
    scratch = Path(session.create_tmp()).resolve()
    for stale in ("dist", "wheels", "sources"):
        shutil.rmtree(scratch / stale, ignore_errors=True)
    step = functools.partial(session.run, "python", "-m", "releasing", env={"PYTHONPATH": str(ROOT / "tools")})
    step("check", package)
    step("build", package, "--out", str(scratch / "dist"))
    step("plan", package, "--out", str(scratch))
    plan = json.loads((scratch / "plan.json").read_text(encoding="utf-8"))
    (wheel,) = (scratch / "dist").glob("*.whl")

    newest = [wheel_of(session, Path(folder), scratch) for folder in plan["siblings"]["newest"]]
    python = environment(session, scratch / "environment", [wheel, *newest], extras={})
    with session.chdir(scratch):  # away from the sources
        session.run(python, "-c", readme_example(ROOT / "packages" / package / "README.md"), external=True)

    runs = [(ROOT / "packages" / package, f"the {which} siblings", them) for which, them in plan["siblings"].items()]
    runs += [(Path(one["folder"]), f"the new {wheel.stem}", one["siblings"]) for one in plan["dependents"]]
    for folder, against, siblings in runs:
        sources = [Path(one) for one in [folder, *siblings] if Path(one).name != package]
        wheels = [wheel_of(session, one, scratch) for one in sources]
        python = environment(session, scratch / "environment", [wheel, *wheels], extras=EXTRAS_FOR_TESTS)
        where = ("--root", str(folder.parents[1]), "--out", str(scratch))
        step("test", folder.name, *where, "--python", python, "--against", against, "--numprocesses", "2")
    step("finish", package, *session.posargs)


def wheel_of(session: nox.Session, folder: Path, scratch: Path) -> Path:
    """The wheel of a package in the workspace or in the sources of a tag, built once."""
    out = scratch / "wheels" / folder.parents[1].name / folder.name
    if not out.exists():
        session.run("uv", "build", "--quiet", "--no-sources", "--wheel", "--out-dir", str(out), str(folder))
    (wheel,) = out.glob("*.whl")
    return wheel


def environment(session: nox.Session, place: Path, wheels: list[Path], extras: dict[str, str]) -> str:
    """A fresh environment with these wheels, and what tests need where extras are given; its interpreter."""
    session.run("uv", "venv", "--quiet", "--clear", "--python", "python", str(place))
    python = str(place / "bin" / "python")
    names = {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in wheels}
    wanted = [f"{name}{extras.get(name, '')} @ {wheel.as_uri()}" for name, wheel in names.items()]
    wanted += group("test") if extras else []
    constraint = ("--constraint", str(ROOT / "constraints.txt"))
    pip = ("uv", "pip", "install", "--quiet", "--python", python, *constraint)
    session.run(*pip, *wanted)
    for name in names.keys() & WITHOUT_DEPENDENCIES.keys() if extras else ():
        session.run(*pip, "--no-deps", *WITHOUT_DEPENDENCIES[name])
    return python


KERNEL_TESTS = ROOT / "packages" / "plstm-torch" / "tests" / "triton"


def kernel_conformance(session: nox.Session, chosen: str, processes: str, **environment: str) -> None:
    """Run the shared suite against the kernels alone."""
    folder = ROOT / "packages" / "plstm-torch" / "conformance"
    session.run(
        *("pytest", "-p", "plstm_testing.conformance.plugin", "--pyargs", "plstm_testing.conformance.suite"),
        *("--conformance-adapter", str(folder / "triton_adapter.py")),
        *("--conformance-xfail", str(folder / "triton_xfail.toml"), "-k", chosen, "--numprocesses", processes),
        env={"OMP_NUM_THREADS": "1", **environment},
    )


def install_kernels(session: nox.Session) -> None:
    extras = {"plstm-testing": "[conformance]", "plstm-torch": "[triton]"}
    install(session, "pytest-xdist", *editable(*for_tests("plstm-torch"), extras=extras))


@nox.session
def triton(session: nox.Session) -> None:
    """Test the Triton kernels without a GPU: in the interpreter, and compiled for two generations of GPUs."""
    install_kernels(session)
    # long sequences and larger grids are for the GPU: the interpreter takes milliseconds for what a program does
    kernel_conformance(session, "triton and not long_sequence and not default_block", "2", TRITON_INTERPRET="1")
    pytest = ("pytest", "--numprocesses", "2")
    threads = {"OMP_NUM_THREADS": "1"}
    interpreted = [str(KERNEL_TESTS / f"interpreted{part}.py") for part in ("", "_matrices", "_graphs", "_blocks")]
    session.run(*pytest, *interpreted, env={"TRITON_INTERPRET": "1", **threads})
    session.run(*pytest, str(KERNEL_TESTS / "compiled.py"), env={"TRITON_DEFAULT_FP_FUSION": "1", **threads})


@nox.session
def gpu(session: nox.Session) -> None:
    """Test the Triton kernels on this machine's GPU; needs the CUDA toolkit's compute-sanitizer for the last step."""
    install_kernels(session)
    kernel_conformance(session, "triton", "0", CUBLAS_WORKSPACE_CONFIG=":4096:8")
    session.run("pytest", str(KERNEL_TESTS / "on_gpu.py"), env={"OMP_NUM_THREADS": "1"})
    smallest = ("python", str(KERNEL_TESTS / "smallest.py"))
    session.run("compute-sanitizer", "--error-exitcode", "1", *smallest, external=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Time ops and layers beside their peers, in turns, and compare the ratios with those that are kept."""
    install(session, *editable(*REQUIRES["plstm-torch"], "plstm-torch", extras={"plstm-torch": "[train,pyg]"}))
    kept = sorted(ROOT.glob("benchmarks/results/ratios_cpu_*.json"))
    compare = ("--compare", str(kept[-1])) if kept else ()
    session.run("python", "benchmarks/ratios.py", "--json", "build/ratios.json", *compare, *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Hold ops, configs, weights, runs and graphs against drawn inputs: ``nox -s fuzz -- --minutes 20``."""
    install(
        session,
        *editable(
            *REQUIRES["plstm-torch"],
            "plstm-torch",
            "plstm-jax",
            "plstm-nnx",
            "plstm-linen",
            extras={"plstm-torch": "[train,pyg,tokenizers]"},
        ),
    )
    session.run("python", str(ROOT / "fuzz"), *(session.posargs or ["--minutes", "20"]), env={"OMP_NUM_THREADS": "1"})
