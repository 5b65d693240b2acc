"""Do the docstrings of a package speak one dialect, and do their examples run?

Google's sections; every parameter is described and nothing that is none; shapes stand where arrays do. `run` reads the
sources, `run_examples` executes the examples and tells which public names have none.
"""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .messages import sources

SECTIONS = ("Args", "Returns", "Yields", "Raises", "Warns", "Attributes", "Examples", "Source")
# More parameters than these need a section, unless the summary says where they are described.
_FEW = 2
_ELSEWHERE = re.compile(r"\b(see|as in|as of) [`\[]")
_SECTION = re.compile(r"^([A-Z][a-z]+):$", re.MULTILINE)
_ENTRY = re.compile(r"^    (?! )(\*{0,2}[\w., ]+?)(?: \([^)]*\))?: (.*(?:\n(?:        .*)?)*)", re.MULTILINE)
# An array whose annotation does not tell the shape, so that the description has to.
_ARRAY = re.compile(r"(np\.)?(Array|Tensor|ndarray)( \| None)?")
_SHAPE = re.compile(r"\[|shape|scalar|axis|axes|any |`\w+`")
_RANDOM_KEY = "key"  # of JAX; the key of an op has its shape in the annotation
_SENTENCE = re.compile(r"(An?|[A-Z][a-z]+)[ ,.:;]")


@dataclass(frozen=True)
class Documented:
    """A public function, method or class as it stands in the source.

    Attributes:
        place: file, line and name.
        node: its syntax.
        method: whether it stands in a class.
        private: whether it stands in a module for the package itself.
    """

    place: str
    node: ast.FunctionDef | ast.ClassDef
    method: bool
    private: bool

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.place.split(":")[0]

    @property
    def text(self) -> str:
        """The docstring, empty if there is none."""
        return ast.get_docstring(self.node) or ""

    @property
    def sections(self) -> dict[str, str]:
        """The text of each section, and the rest under ""."""
        parts = _SECTION.split(self.text)
        return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}

    @property
    def parameters(self) -> dict[str, ast.expr | None]:
        """The parameters with their annotations, those of a class from its `__init__`, without the object itself."""
        node: ast.AST | None = self.node
        if isinstance(node, ast.ClassDef):
            node = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
        if not isinstance(node, ast.FunctionDef):
            return {}
        given = node.args
        named = [*given.posonlyargs, *given.args]
        bound = (self.method or node is not self.node) and "staticmethod" not in map(ast.unparse, node.decorator_list)
        named = named[1:] if bound else named
        named += [one for one in (given.vararg,) if one] + given.kwonlyargs + [one for one in (given.kwarg,) if one]
        return {one.arg: one.annotation for one in named}


def run(package: str, brief: Mapping[str, str] | None = None) -> list[str]:
    """Read the docstrings in the sources of a package.

    Args:
        package: name of the package.
        brief: files whose functions may leave out the section on their parameters, each with the reason.

    Returns:
        A line for each fault.
    """
    brief = brief or {}
    return [f"{one.place}: {fault}" for one in documented(package) for fault in _faults(one, one.file in brief)]


def run_examples(package: str, prepare: Callable[[], object]) -> list[str]:
    """Execute the examples in the docstrings of a package, each on its own: it imports what it needs.

    Args:
        package: name of the package.
        prepare: called before each, to seed random numbers.

    Returns:
        What went wrong, one entry for each example.
    """
    failures: list[str] = []
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    for one in documented(package):
        if ">>>" in one.text:
            prepare()
            test = parser.get_doctest(one.text, {}, one.place, one.file, 0)
            said: list[str] = []
            runner.run(test, out=said.append)
            failures += ["".join(said)] if said else []
    return failures


def without_example(package: str, modules: Sequence[str], exceptions: Mapping[str, str]) -> list[str]:
    """Find public functions and classes that show no use.

    Args:
        package: name of the package.
        modules: those whose `__all__` (or, without one, whose definitions) are public.
        exceptions: names that need no example, each with the reason.

    Returns:
        A line for each name without an example, and for each exception that is none.
    """
    shown: dict[str, bool] = {}
    for one in documented(package):
        if not one.method:
            shown[one.node.name] = shown.get(one.node.name, False) or ">>>" in one.text
    public = {name for module in modules for name in _public_names(module)}
    missing = sorted(name for name in public if shown.get(name) is False and name not in exceptions)
    idle = sorted(name for name in exceptions if shown.get(name) is not False or name not in public)
    return [f"{name}: expected an example, got none" for name in missing] + [
        f"exceptions: expected public names without an example, got {name}" for name in idle
    ]


def _public_names(module: str) -> list[str]:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"modules: expected names of modules, got {module!r}")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return [node.name for node in _public(tree)]


def documented(package: str) -> Iterator[Documented]:
    """The public functions, classes and methods of a package.

    Args:
        package: name of the package.

    Yields:
        Each of them; methods that override one of a class elsewhere may leave the description to it.
    """
    for path in sources(package):
        private = any(part.startswith("_") and not part.startswith("__") for part in path.parts)
        for node in _public(ast.parse(path.read_text(encoding="utf-8"))):
            yield Documented(f"{path.name}:{node.lineno} {node.name}", node, False, private)
            for inner in _public(node) if isinstance(node, ast.ClassDef) else ():
                yield Documented(f"{path.name}:{inner.lineno} {node.name}.{inner.name}", inner, True, private)


def _public(parent: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in parent.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not any(ast.unparse(decorator).endswith(("overload", ".setter")) for decorator in node.decorator_list):
            yield node


def _faults(one: Documented, brief: bool) -> Iterator[str]:
    text, sections = one.text, one.sections
    if not text:
        yield "expected a docstring, got none"
        return
    for name in set(sections) - {"", *SECTIONS}:
        yield f"expected the sections {', '.join(SECTIONS)}, got {name}"
    many = len(one.parameters) > _FEW and isinstance(one.node, ast.FunctionDef)
    if "Args" in sections or (many and not brief and not one.private and not _ELSEWHERE.search(text)):
        yield from _argument_faults(one, sections.get("Args", ""))
    if "Args" in sections and _gives_something(one.node) and not sections.keys() & {"Returns", "Yields"}:
        yield "expected a section Returns or Yields, got none"
    if "Attributes" in sections and isinstance(one.node, ast.ClassDef):
        yield from _attribute_faults(one.node, sections["Attributes"])
    for name in ("Args", "Attributes", "Raises"):
        for entry, said in _entries(sections.get(name, "")).items():
            if _SENTENCE.match(said) or not said.endswith((".", "::", "`", ":")):
                yield f"{name}, {entry}: expected a clause from a small letter to a full stop, got {said!r:.60}"


def _argument_faults(one: Documented, section: str) -> Iterator[str]:
    entries = {name.lstrip("*"): said for name, said in _entries(section).items()}
    known = {name: annotation for name, annotation in one.parameters.items() if not name.startswith("_")}
    if list(entries) != list(known):
        yield f"expected Args of {', '.join(known)}, got {', '.join(entries) or 'none'}"
    for name, annotation in known.items():
        is_array = not one.private and annotation is not None and _ARRAY.fullmatch(ast.unparse(annotation))
        if is_array and name != _RANDOM_KEY and name in entries and not _SHAPE.search(entries[name]):
            yield f"Args, {name}: expected the shape of an array, got {entries[name]!r:.60}"


def _attribute_faults(node: ast.ClassDef, section: str) -> Iterator[str]:
    """A dataclass describes all its fields, another class what it has."""
    annotated = [one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
    fields = [ast.unparse(one.target) for one in annotated if "ClassVar" not in ast.unparse(one.annotation)]
    public = [name for name in fields if not name.startswith("_")]
    entries = [name.strip() for entry in _entries(section) for name in entry.split(",")]
    decorated = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
    # a class with a base may leave to it what it only gives another default
    known = [name for name in public if name in entries] if node.bases else public
    if decorated and entries != known:
        yield f"expected Attributes of {', '.join(public)}, got {', '.join(entries) or 'none'}"


def _entries(section: str) -> dict[str, str]:
    return {name: " ".join(said.split()) for name, said in _ENTRY.findall(section)}


def _gives_something(node: ast.FunctionDef | ast.ClassDef) -> bool:
    if not isinstance(node, ast.FunctionDef) or node.returns is None:
        return False
    return ast.unparse(node.returns) not in ("None", "NoReturn")
