"""What the packages promise, in pyproject.toml, in READMEs and in CONTRIBUTING, is one and the same."""

import ast
import re
import sys

import pytest
from packaging.requirements import Requirement

from releasing.__main__ import ROOT
from releasing.workspace import packages

PACKAGES = packages(ROOT)
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FRAMEWORKS = ("jax", "flax", "torch")
# Names of distributions whose modules are called otherwise.
DISTRIBUTIONS = {"yaml": "pyyaml", "PIL": "pillow", "sklearn": "scikit-learn"}
# Modules of extras that no `require` stands before, and what says instead how to install them.
ELSEWHERE = {
    ("plstm-testing", "pytest"): "only pytest itself loads the plugin",
    ("plstm-testing", "plstm_golden"): 'pip install "plstm-testing[conformance]"',
    ("plstm-torch", "triton"): "pip install 'plstm-torch[triton]'",
}


def lowest(package):
    """The lowest version of each framework that a package accepts."""
    stated = [Requirement(one) for one in package.project["dependencies"]]
    found = {one.name: str(one.specifier) for one in stated if one.name in FRAMEWORKS}
    assert all(re.fullmatch(r">=[\d.]+", range_) for range_ in found.values()), found
    return {name: range_.removeprefix(">=") for name, range_ in found.items()}


def promised_pythons():
    first, last = re.search(r"Promised are Python 3\.(\d+) to 3\.(\d+)", CONTRIBUTING).groups()
    return [f"3.{minor}" for minor in range(int(first), int(last) + 1)]


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_classifiers_are_the_pythons_that_are_promised(package):
    prefix = "Programming Language :: Python :: "
    stated = [one.removeprefix(prefix) for one in package.project["classifiers"] if one.startswith(prefix)]
    assert stated == ["3", *promised_pythons()]
    assert package.project["requires-python"] == f">={promised_pythons()[0]}"


def test_every_promised_python_has_a_session():
    (listed,) = re.findall(r"^PYTHONS = (\[.*\])$", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(promised_pythons()) <= set(ast.literal_eval(listed))


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_the_readme_says_what_is_needed(package):
    text = (package.folder / "README.md").read_text(encoding="utf-8")
    line = re.search(r"^Needs Python .*$", text, re.MULTILINE)
    said = dict(re.findall(r"(Python|jax|flax|torch) ([\d.]*\d) or newer", line.group() if line else ""))
    python = said.pop("Python", None)
    assert said == lowest(package)
    assert python in (None, promised_pythons()[0])


def test_contributing_says_what_is_needed():
    said = dict(re.findall(r"\b(jax|flax|torch) from ([\d.]*\d) on", CONTRIBUTING))
    stated = [lowest(one) for one in PACKAGES.values()]
    wanted = {name: min((one[name] for one in stated if name in one), key=version_key) for name in FRAMEWORKS}
    assert said == wanted


def version_key(text):
    return tuple(map(int, text.split(".")))


def imports(package):
    """Pairs of a file and the first part of the name of each module that it imports."""
    for path in package.sources.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name.split(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield path, node.module.split(".")[0]


def required(package):
    """The first parts of the names of modules for which the package has a `require`."""
    for path in package.sources.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
            if called == "require" and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value).split(".")[0]


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_whatever_is_imported_is_declared_or_says_how_to_install_it(package):
    declared = {Requirement(one).name for one in package.project.get("dependencies", ())}
    optional = package.project.get("optional-dependencies", {}).values()
    extras = {Requirement(one).name for extra in optional for one in extra}
    known = {*sys.stdlib_module_names, package.module}
    asked = set(required(package))
    faults = set()
    for path, module in imports(package):
        distribution = DISTRIBUTIONS.get(module, module.replace("_", "-"))
        if module in known or distribution in declared:
            continue
        if distribution not in extras:
            faults.add(f"{path.relative_to(ROOT)}: {module} is in no dependency and no extra")
        elif module not in asked and (package.name, module) not in ELSEWHERE:
            faults.add(f"{path.relative_to(ROOT)}: nothing says how to install {module}")
    assert not faults, "\n".join(sorted(faults))


@pytest.mark.parametrize(("name", "module"), ELSEWHERE)
def test_what_is_required_elsewhere_says_so(name, module):
    said = ELSEWHERE[name, module]
    sources = "".join(path.read_text(encoding="utf-8") for path in PACKAGES[name].sources.rglob("*.py"))
    assert "pip install" not in said or said in sources


def test_every_extra_is_in_the_readme():
    for package in PACKAGES.values():
        text = (package.folder / "README.md").read_text(encoding="utf-8")
        for extra in package.project.get("optional-dependencies", {}):
            assert f"{package.name}[{extra}]" in text, f"{package.name}: its README does not show the extra {extra}"
