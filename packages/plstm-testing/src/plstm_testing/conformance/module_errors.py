"""Bad input of modules: every backend refuses it in the same words, which name argument, expectation and finding."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from plstm_config.topology import DagTopology

from .adapter import Adapter, Array
from .lacks import NotAskedError
from .layer_cases import EDGES, NUM_NODES
from .modules import call, case_named, is_module

# One case of every kind of input; each is asked for more and for fewer features, and for another rank.
ON_FEATURES = {
    "layers": {
        "source_bias_only": "... D",
        "query_2": "... D",
        "rmsnorm_0": "... D",
        "multiheadrmsnorm_None": "... D",
        "convolution_1d_4_6": "B T D",
        "convolution_2d_3x3_causal": "B X Y D",
        "linear": "... D",
        "passthrough": "... D",
        "1d_scalar": "B T D",
        "2d_fused_P_scalar": "B X Y D",
        "2d_list_D_L_0": "B X Y D",
        "graph_P_own_outgoing": "N D",
        "graph_edge_P_shared_outgoing": "N D",
    },
}
PACKED = {"cu_seqlens": np.array([0, 2, 5])}
BOTH_WAYS = "expected a causal module, got "
NO_TIME = "expected a module with one time axis \\(pLSTM1DLayer inside\\), got "
OTHER_NODES = DagTopology.from_edges(NUM_NODES + 1, EDGES)
TO_NODE_4 = DagTopology.from_edges(NUM_NODES, [[tail, 5] for tail in range(5)])


@dataclass(frozen=True)
class ModuleErrorCase:
    """A call of a module that must fail.

    Attributes:
        name: name of the case.
        group: "layers" or "models".
        module: name of the case in that group that is spoilt.
        error: expected exception type.
        message: regular expression that the message must match from its beginning.
        inputs: inputs that are replaced.
        keywords: keywords that are added.
        method: of the call.
    """

    name: str
    group: str
    module: str
    error: type[Exception]
    message: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    keywords: Mapping[str, Any] = field(default_factory=dict)
    method: Literal["forward", "step"] = "forward"


def check_module_error(adapter: Adapter, case: ModuleErrorCase) -> None:
    """The call raises the expected error.

    Args:
        adapter: the backend.
        case: the bad call.

    Raises:
        AssertionError: if the call succeeds, or fails in another way.
    """
    asked = call(case_named(case.group, case.module), device=adapter.devices[0])
    inputs = {**asked.inputs, **case.inputs}
    spoilt = replace(asked, inputs=inputs, keywords={**asked.keywords, **case.keywords}, method=case.method)
    expected = f"expected {case.error.__name__} with /^{case.message}/"
    try:
        adapter.run_module(spoilt)
    except NotAskedError:
        raise
    except Exception as error:
        if type(error) is not case.error or not re.match(case.message, str(error)):
            raise AssertionError(f"{expected}, got {type(error).__name__}: {error}") from error
        return
    raise AssertionError(f"{expected}, got a result")


def module_error_cases() -> Iterator[ModuleErrorCase]:
    """All bad calls of modules."""
    for cases in (
        _features,
        _sequence_errors,
        _bidirectional_errors,
        _graph_errors,
        _cache_errors,
        _token_errors,
        _image_errors,
    ):
        yield from cases()


def checks(adapter: Adapter) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks of a backend by name."""
    for case in module_error_cases():
        if is_module(adapter, case_named(case.group, case.module).config):
            yield f"{case.module}-{case.name}", partial(check_module_error, adapter, case)


def _first(group: str, module: str) -> Array:
    return next(iter(case_named(group, module).inputs.values()))


def _features() -> Iterator[ModuleErrorCase]:
    for group, modules in ON_FEATURES.items():
        for module, axes in modules.items():
            x, words = _first(group, module), axes.replace(" ", ", ")
            expected = rf"x: expected \[{re.escape(words)}\] with D={x.shape[-1]}, got \["
            wrong = {"more_features": np.concatenate([x, x[..., :1]], -1), "fewer_features": x[..., 1:]}
            if not axes.startswith("..."):
                wrong |= {"axis_more": x[None], "axis_less": x[0]}
            for name, array in wrong.items():
                yield ModuleErrorCase(name, group, module, ValueError, expected, {"x": array})
    x = _first("layers", "multiheadrmsnorm_1")
    heads = r"x: expected num_heads=4 on axis 1, got \[2, 3, "
    yield ModuleErrorCase("heads", "layers", "multiheadrmsnorm_1", ValueError, heads, {"x": x[:, :3]})


def _sequence_errors() -> Iterator[ModuleErrorCase]:
    """What only modules on sequences can do is asked of others, and packed sequences that are none."""
    others = {
        ("models", "post_up_grid"): "PostUpProjectionBlock",
        ("models", "graph_block_post_up"): "pLSTMGraphBlock",
        ("models", "vision_block_PD"): "pLSTMVisionBlock",
        ("models", "transformer"): "TransformerBlock",
    }
    asked: dict[str, dict[str, Any]] = {"cu_seqlens": PACKED, "return_cache": {"return_cache": True}}
    for (group, module), owner in others.items():
        for name, keywords in asked.items():
            message = rf"{name}: {NO_TIME}{owner}, "
            yield ModuleErrorCase(name, group, module, ValueError, message, keywords=keywords)
    for module in ("1d_no_convolution", "1d_reads_all"):
        for name, bounds, expected in (("late", [1, 5], "first boundary to be 0"), ("short", [0, 4], "last boundary")):
            packed = {"cu_seqlens": np.array(bounds)}
            message = rf"cu_seqlens: expected .*{expected}"
            yield ModuleErrorCase(f"packed_{name}", "layers", module, ValueError, message, keywords=packed)
    on_sequence = "graph: expected None, since PostUpProjectionBlock is not on graphs, got "
    yield ModuleErrorCase("graph", "models", "post_up_plain", ValueError, on_sequence, {"graph": OTHER_NODES})


def _bidirectional_errors() -> Iterator[ModuleErrorCase]:
    """What needs a start is asked of modules that read sequences from both ends."""
    modules = {
        ("layers", "1d_bidirectional_length_7"): "pLSTM1DLayer",
        ("models", "pre_up_bidirectional"): "PreUpProjectionBlock",
        ("models", "post_up_bidirectional"): "PostUpProjectionBlock",
        ("models", "stack_bidirectional"): "BlockStack",
        ("models", "language_bidirectional"): "pLSTMLMModel",
    }
    asked: dict[str, dict[str, Any]] = {"return_cache": {"return_cache": True}, "cache": {"cache": {}}}
    for (group, module), owner in modules.items():
        for name, keywords in asked.items():
            message = f"{name}: {BOTH_WAYS}{owner} with bidirectional=True"
            yield ModuleErrorCase(name, group, module, ValueError, message, keywords=keywords)
            packed = {**keywords, "cu_seqlens": np.array([0, 2, _first(group, module).shape[1]])}
            yield ModuleErrorCase(f"{name}_packed", group, module, ValueError, message, keywords=packed)
        (argument, array), *_ = case_named(group, module).inputs.items()
        stepping: dict[str, Any] = {"inputs": {argument: array[:, 0]}, "keywords": {"cache": {}}, "method": "step"}
        message = f"step: {BOTH_WAYS}{owner} with bidirectional=True"
        yield ModuleErrorCase("step", group, module, ValueError, message, **stepping)


def _graph_errors() -> Iterator[ModuleErrorCase]:
    on_nodes, on_edges = "graph_P_own_outgoing", "graph_edge_P_shared_outgoing"
    rows = case_named("layers", on_edges).inputs["edge_attr"]
    count = len(EDGES)
    layers = partial(ModuleErrorCase, group="layers")
    for module in (on_nodes, on_edges):
        nodes = f"graph: expected a graph of N={NUM_NODES} nodes, as many as x has, got {NUM_NODES + 1}"
        yield layers("nodes", module=module, error=ValueError, message=nodes, inputs={"graph": OTHER_NODES})
        missing = r"graph: expected a DagTopology or an edge_index \[2,E\], got NoneType"
        yield layers("no_graph", module=module, error=TypeError, message=missing, inputs={"graph": None})
        cycle = "edges: expected no cycle, got .* in the cycle 1 -> 2 -> 0 -> 1"
        looped = np.array([[0, 1, 2], [1, 2, 0]])
        yield layers("cycle", module=module, error=ValueError, message=cycle, inputs={"graph": looped})
    degrees = "graph: expected at most max_edges=4 edges into a node, got 5 into node 5"
    yield layers("degrees", module=on_nodes, error=ValueError, message=degrees, inputs={"graph": TO_NODE_4})
    unread = r"edge_attr: expected None, since gates are made from nodes, got \[10, 3\]"
    yield layers("features", module=on_nodes, error=ValueError, message=unread, inputs={"edge_attr": rows})
    without = r"edge_attr: expected edge features \[E, De\] with De=3, got None"
    yield layers("no_features", module=on_edges, error=ValueError, message=without, inputs={"edge_attr": None})
    narrow = r"edge_attr: expected \[E, De\] with De=3, got \[10, 2\]"
    yield layers("narrow", module=on_edges, error=ValueError, message=narrow, inputs={"edge_attr": rows[:, :2]})
    fewer = f"edge_attr: expected one row for each of the E={count} edges, got {count - 1}"
    yield layers("rows", module=on_edges, error=ValueError, message=fewer, inputs={"edge_attr": rows[1:]})


def _cache_errors() -> Iterator[ModuleErrorCase]:
    module = "1d_reads_all"
    x = _first("layers", module)
    layers = partial(ModuleErrorCase, group="layers", module=module, error=ValueError)
    step: dict[str, Any] = {"inputs": {"x": x[:, 0]}, "method": "step"}
    yield layers("step_of_sequences", message=r"x: expected \[B, D\] with D=8, got \[", method="step")
    other = {"cache": {"unknown": np.zeros((2, 1))}}
    entries = "cache: expected the entries .*state.*, got unknown"
    yield layers("entries", message=entries, keywords=other)
    yield layers("entries_of_step", message=entries, keywords=other, **step)
    window = {"state": np.zeros((3, 2, 4, 4)), "window": np.zeros((3, 3, 8))}
    rows = "cache: expected 2 sequences, one for each of x, got 3 in "
    yield layers("rows", message=rows, keywords={"cache": window})
    yield layers("rows_of_step", message=rows, keywords={"cache": window}, **step)


def _token_errors() -> Iterator[ModuleErrorCase]:
    models = partial(ModuleErrorCase, group="models", module="language_plain")
    tokens = _first("models", "language_plain")
    rank = r"token_ids: expected shape \[B, T\], got \("
    yield models("rank", error=ValueError, message=rank, inputs={"token_ids": tokens[0]})
    integers = "token_ids: expected integers, got .*float"
    yield models("fractions", error=TypeError, message=integers, inputs={"token_ids": tokens / 1.0})


def _image_errors() -> Iterator[ModuleErrorCase]:
    pixels = _first("models", "vision_mean")
    wrong: dict[str, tuple[type[Exception], str, Array]] = {
        "rank": (ValueError, r"4 axes \[B, height, width, C\], got shape \(4, 6, 2\)", pixels[0]),
        "channels": (ValueError, r"2 channels in \[B, height, width, C\], got 1 channels", pixels[..., :1]),
        "height": (ValueError, "a height that patches of 2 at stride 2 tile exactly, got 3", pixels[:, :3]),
        "width": (ValueError, "a width that patches of 2 at stride 2 tile exactly, got 5", pixels[:, :, :5]),
        "integers": (TypeError, "floating point values, got .*int", np.ones(pixels.shape, np.int64)),
    }
    for name, (error, message, array) in wrong.items():
        message = f"pixels: expected {message}"
        for module in ("vision_mean", "vision_corners"):
            yield ModuleErrorCase(name, "models", module, error, message, {"pixels": array})
