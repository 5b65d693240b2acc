"""Are the annotated shapes of a backend true? Its checks, run with every annotation enforced.

    python -m plstm_testing.conformance.annotations ADAPTER MODULE...

imports the adapter file while jaxtyping and beartype check the arguments and results of every function in the modules
(and the modules below them), and runs those checks of the suite that call each op, layer and model once in float64. It
needs beartype. Bad input is not among them: an annotation would refuse it before the backend could.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from jaxtyping import install_import_hook

from .adapter import load_adapter
from .checks import Check, all_checks
from .compiled import compiles

_GROUPS = ("values", "golden_ops", "golden_modules", "layers", "models", "packed_layers")
# Where every call is compiled, the golden modules alone call all layers and models, and cases that differ from another
# in numbers and sizes only, of which annotations say nothing, are left out.
_COMPILED_GROUPS = ("values", "golden_modules")
_NUMBERS_AND_SIZES = (
    "special",
    "huge",
    "default",
    "one_",
    "no_",
    "zero",
    "empty",
    "chunk_",
    "block_",
    "long_",
    "scale",
)
_ONE_DTYPE, _ONE_FORM = "float64", "-auto"


def run(adapter_file: str, modules: Sequence[str]) -> list[str]:
    """Run the checks with enforced annotations.

    Args:
        adapter_file: python file that defines `adapter`.
        modules: names of modules whose annotations are enforced; they must not be imported yet.

    Returns:
        A line for each check that fails.

    Raises:
        ValueError: if a module is imported already, so that its annotations cannot be enforced any more.
    """
    early = [name for name in modules if name in sys.modules]
    if early:
        raise ValueError(f"modules: expected names that are not imported yet, got {', '.join(early)}")
    with install_import_hook(list(modules), "beartype.beartype"):
        adapter = load_adapter(adapter_file)
    names, left_out = (_COMPILED_GROUPS, _NUMBERS_AND_SIZES) if compiles(adapter) else (_GROUPS, ())
    chosen = _chosen(all_checks(adapter), names, left_out)
    return [line for check in chosen if (line := _failure(check))]


def _chosen(groups: dict[str, list[Check]], names: Sequence[str], left_out: Sequence[str]) -> Iterator[Check]:
    for group in names:
        for check in groups.get(group, ()):
            other_form = group in ("values", "golden_ops") and _ONE_FORM not in check.name
            other_dtype = any(dtype in check.name for dtype in ("float32", "float16")) and _ONE_DTYPE not in check.name
            is_left_out = group == "values" and any(part in check.name for part in left_out)
            if not other_form and not other_dtype and not is_left_out:
                yield check


def _failure(check: Check) -> str:
    try:
        check.run()
    except Exception as error:  # whatever it is, it is reported
        return f"{check.name}: {type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    failures = run(sys.argv[1], sys.argv[2:])
    print("\n".join(failures) or "all annotations hold")
    sys.exit(1 if failures else 0)
