"""Gather the pages of the site: `python -m documenting build/docs`."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from plstm_config.base import Config
from plstm_config.parameters import named_configs, parameter_tree
from plstm_testing.conformance.modules import GROUPS

ROOT = Path(__file__).parents[2]
TORCH, JAX = ROOT / "packages/plstm-torch/src/plstm_torch", ROOT / "packages/plstm-jax/src/plstm_jax"
# Documents that stand beside the code, by their place in the site.
BORROWED = {
    "ops/plstm_1d.md": TORCH / "ops/_plstm_1d/README.md",
    "ops/plstm_2d.md": TORCH / "ops/_plstm_2d/README.md",
    "ops/plstm_graph.md": TORCH / "ops/_plstm_graph/README.md",
    "ops/triton.md": TORCH / "ops/_triton/README.md",
    "ops/parallel.md": TORCH / "parallel/README.md",
    "ops/jax.md": JAX / "ops/README.md",
    "modules/formulas.md": ROOT / "packages/plstm-config/docs/layers.md",
}
API = {
    "plstm_config": ["plstm_config", "plstm_config.topology", "plstm_config.folder", "plstm_config.original"],
    "plstm_torch": [
        "plstm_torch",
        *(f"plstm_torch.{part}" for part in ("ops", "layers", "blocks", "models", "parallel")),
    ],
    "plstm_jax": ["plstm_jax", "plstm_jax.ops", "plstm_jax.functional"],
    "plstm_nnx": ["plstm_nnx", "plstm_nnx.layers", "plstm_nnx.blocks", "plstm_nnx.models"],
    "plstm_linen": ["plstm_linen", "plstm_linen.layers", "plstm_linen.blocks", "plstm_linen.models"],
    "plstm_testing": ["plstm_testing.reference", "plstm_testing.golden", "plstm_testing.tolerances"],
}
FAMILIES = {"layers": "Layers", "blocks": "Blocks", "models": "Models"}


def gather(out: Path) -> None:
    """Write all pages.

    Args:
        out: the folder of the pages; what stood there is gone afterwards.
    """
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "docs", out, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    pages = {name: without_local_links(path.read_text(encoding="utf-8")) for name, path in BORROWED.items()}
    pages["backend.md"] = chapter(ROOT / "CONTRIBUTING.md", "Add a backend")
    pages |= {f"api/{name}.md": api_page(name, modules) for name, modules in API.items()}
    pages |= {f"modules/{family}.md": family_page(family, title) for family, title in FAMILIES.items()}
    for name, text in pages.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")


def without_local_links(text: str) -> str:
    """Links that lead into the repository become their text; those to the web and within the page stay."""
    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)[^)]*\)", r"\1", text)


def chapter(path: Path, title: str) -> str:
    """One chapter of a document as a page of its own."""
    text = path.read_text(encoding="utf-8")
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"{path.name}: expected a chapter {title!r}, got none")
    return f"# {title}\n{without_local_links(found.group(1))}"


def api_page(name: str, modules: list[str]) -> str:
    """What modules export, by their docstrings."""
    return f"# {name}\n\n" + "\n".join(f"## {module}\n\n::: {module}\n" for module in modules)


def family_page(family: str, title: str) -> str:
    """The configs of a family with their parameters as tables."""
    intro = "What each parameter is called, in every backend and in the saved files, with the config of an example.\n"
    return "\n".join([f"# {title}", "", intro, *(config_section(config) for config in examples(family))])


def examples(family: str) -> Iterator[Config]:
    """One config of each class of a family, with what it is made of: those of the conformance suite."""
    seen: set[str] = set()
    for case in chain.from_iterable(cases() for cases in GROUPS.values()):
        for _, config in named_configs(case.config):
            name = type(config).__name__
            if name not in seen and family_of(config) == family:
                seen.add(name)
                yield config


def family_of(config: Config) -> str:
    """Which page a config stands on, by the module that defines it."""
    module = type(config).__module__.rpartition(".")[2]
    return module if module in FAMILIES else "models" if module in ("vision", "language", "graph") else "layers"


def config_section(config: Config) -> str:
    """A config's own documentation, and the table of its parameters."""
    name = type(config).__name__
    lines = [f"## {name.removesuffix('Config')}", "", "```text", repr(config), "```", ""]
    rows = [parameter_row(key, one) for key, one in parameter_tree(config).items()]
    if rows:
        lines += ["| name | shape | axes | initialiser | decays | learned |", "|---|---|---|---|---|---|", *rows, ""]
    else:
        lines += ["No parameters.", ""]
    return "\n".join(lines)


def parameter_row(name: str, parameter: object) -> str:
    """One row of the table."""
    shape, axes = getattr(parameter, "shape", ()), getattr(parameter, "axes", ())
    init = type(getattr(parameter, "init", None)).__name__.removesuffix("Config")
    flags = " | ".join("yes" if getattr(parameter, flag) else "no" for flag in ("decay", "learned"))
    return f"| `{name}` | {list(shape)} | {' '.join(map(str, axes))} | {init} | {flags} |"


if __name__ == "__main__":
    gather(Path(sys.argv[1]))
