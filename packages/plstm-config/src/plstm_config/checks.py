"""Checks of what modules are given: by shape, dtype and kind, with the same words in every backend."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeAlias

# What the input of a module is laid out on. "sequence": one time axis, read from the start, so that a cache says all
# about what came before; "bidirectional": one time axis, read from both ends. "any": positions without an order,
# whatever the axes between the first and the last; such modules have no cache and take no graph, like those on grids.
Kind: TypeAlias = Literal["sequence", "bidirectional", "grid", "graph", "any"]
WITH_TIME: tuple[Kind, ...] = ("sequence", "bidirectional")


def check_features(x: Any, axes: str, features: int, name: str = "x") -> None:
    """Check rank and last dimension of an input.

    Args:
        x: the input, anything with a `shape`.
        axes: the expected axes as words, such as "B T D"; a leading "..." stands for any number of axes.
        features: the expected size of the last axis.
        name: the argument's name in the message.

    Raises:
        TypeError: if it has no shape.
        ValueError: if the rank or the number of features differs.
    """
    words = axes.split()
    expected = f"[{', '.join(words)}] with {words[-1]}={features}"
    if not hasattr(x, "shape"):
        raise TypeError(f"{name}: expected {expected}, got {type(x).__name__}")
    shape = tuple(x.shape)
    wrong_rank = len(shape) < len(words) - 1 if words[0] == "..." else len(shape) != len(words)
    if wrong_rank or shape[-1] != features:
        raise ValueError(f"{name}: expected {expected}, got {list(shape)}")


def check_heads(x: Any, num_heads: int, axis: int) -> None:
    """Check that an input has its heads where a norm looks for them, which is not the last axis.

    Args:
        x: the input, anything with a `shape`.
        num_heads: number of heads.
        axis: where they are looked for.

    Raises:
        ValueError: if it has others there.
    """
    rank = len(x.shape)
    if not -rank <= axis < rank or axis % rank == rank - 1 or x.shape[axis] != num_heads:
        raise ValueError(f"x: expected num_heads={num_heads} on axis {axis}, got {list(x.shape)}")


def check_sequence(kind: Kind, owner: str, requests: Collection[str]) -> None:
    """Refuse what only modules with one time axis can do, and of them only causal ones.

    Args:
        kind: what the module works on.
        owner: name of its class.
        requests: names of the arguments or methods that were used.

    Raises:
        ValueError: if there are such although the module does not work on sequences, or others than `cu_seqlens`
            although it reads them from both ends.
    """
    if kind == "bidirectional":
        check_causal(kind, owner, [name for name in requests if name != "cu_seqlens"])
    elif requests and kind != "sequence":
        raise ValueError(
            f"{', '.join(requests)}: expected a module with one time axis (pLSTM1DLayer inside), "
            f"got {owner}, which has no cache and takes no packed sequences"
        )


def check_causal(kind: Kind, owner: str, requests: Collection[str]) -> None:
    """Refuse what reads or predicts a sequence from its start, of a module that reads it from both ends.

    Args:
        kind: what the module works on.
        owner: name of its class.
        requests: names of the arguments, methods or tasks that need causality.

    Raises:
        ValueError: if there are such although the module is bidirectional.
    """
    if requests and kind == "bidirectional":
        raise ValueError(
            f"{', '.join(requests)}: expected a causal module, got {owner} with bidirectional=True, which reads whole "
            "sequences from both ends: it encodes, but has no cache and predicts no next position"
        )


def check_on_graph(kind: Kind, owner: str, graph: Any, edge_attr: Any) -> None:
    """Refuse a graph that a module does not take, or that is missing.

    Args:
        kind: what the module works on.
        owner: name of its class.
        graph: what was given as graph, or None.
        edge_attr: what was given as features of its edges, or None.

    Raises:
        TypeError: if a module on graphs gets none.
        ValueError: if another one gets some.
    """
    if kind == "graph":
        if graph is None:
            raise TypeError("graph: expected a DagTopology or an edge_index [2,E], got NoneType")
    elif graph is not None or edge_attr is not None:
        given, value = ("graph", graph) if graph is not None else ("edge_attr", edge_attr)
        raise ValueError(f"{given}: expected None, since {owner} is not on graphs, got {type(value).__name__}")


def check_topology(graph: Any, num_nodes: int, classes: Any) -> None:
    """Check that a graph is a topology of a number of nodes.

    Args:
        graph: what was given.
        num_nodes: number of nodes that there are features of.
        classes: a class of topologies, or a tuple of them.

    Raises:
        TypeError: if it is something else.
        ValueError: if it has another number of nodes.
    """
    if not isinstance(graph, classes):
        raise TypeError(f"graph: expected a DagTopology or an edge_index [2,E], got {type(graph).__name__}")
    if graph.num_nodes != num_nodes:
        raise ValueError(f"graph: expected a graph of N={num_nodes} nodes, as many as x has, got {graph.num_nodes}")


def check_degrees(in_degree: Any, out_degree: Any, max_edges: int) -> None:
    """Check that no node has too many edges on one side.

    Args:
        in_degree: edges that enter each node, numpy integers [N].
        out_degree: edges that leave each node [N].
        max_edges: the largest number of edges that may enter, and that may leave a node.

    Raises:
        ValueError: if a node has more; the message names it.
    """
    for degree, way in ((in_degree, "into"), (out_degree, "out of")):
        if degree.max(initial=0) > max_edges:
            raise ValueError(
                f"graph: expected at most max_edges={max_edges} edges {way} a node, "
                f"got {degree.max()} {way} node {degree.argmax()}; "
                "raise max_edges, or take pLSTMGraphEdge, which serves any number and needs no features "
                "(edge_input_dim=0; pLSTMConv: edge_dim=0)"
            )


def check_edge_attr(edge_attr: Any, rows: int, width: int) -> None:
    """Check the features of edges.

    Args:
        edge_attr: features [E, De], or None.
        rows: number of edges as they were given.
        width: number of features that a module reads.

    Raises:
        ValueError: if they are missing, or have another shape.
    """
    if edge_attr is None:
        if width:
            raise ValueError(f"edge_attr: expected edge features [E, De] with De={width}, got None")
        return
    check_features(edge_attr, "E De", width, "edge_attr")
    if edge_attr.shape[0] != rows:
        raise ValueError(f"edge_attr: expected one row for each of the E={rows} edges, got {edge_attr.shape[0]}")


def check_no_edge_attr(edge_attr: Any) -> None:
    """Refuse features of edges where gates are made from nodes.

    Args:
        edge_attr: what was given as features of edges, or None.

    Raises:
        ValueError: if there are such.
    """
    if edge_attr is not None:
        raise ValueError(f"edge_attr: expected None, since gates are made from nodes, got {list(edge_attr.shape)}")


def check_cache(cache: Mapping[str, Any], names: Collection[str], rows: int) -> None:
    """Check that a cache fits a layer and the number of sequences.

    Args:
        cache: the cache.
        names: the entries that the layer reads.
        rows: the number of sequences.

    Raises:
        ValueError: if the cache has other entries, or holds another number of sequences.
    """
    if set(cache) != set(names):
        raise ValueError(f"cache: expected the entries {', '.join(names)}, got {', '.join(sorted(cache)) or 'none'}")
    for name in names:
        if cache[name].shape[0] != rows:
            raise ValueError(
                f"cache: expected {rows} sequences, one for each of x, got {cache[name].shape[0]} in {name}"
            )


def check_cache_entry(cache: Mapping[str, Any], name: str) -> None:
    """Check that a cache has a part for a submodule.

    Args:
        cache: the cache.
        name: of the part.

    Raises:
        ValueError: if it was made by another module and has no such part.
    """
    if name not in cache:
        raise ValueError(f"cache: expected an entry {name!r} as init_cache makes it, got the entries {sorted(cache)}")


def check_rank(name: str, array: Any, axes: str) -> None:
    """Check the number of axes.

    Args:
        name: name of the argument, for messages.
        array: anything with a `shape`.
        axes: the expected axes, such as "B, T".

    Raises:
        TypeError: if it has no shape.
        ValueError: if there are more or fewer.
    """
    if not hasattr(array, "shape"):
        raise TypeError(f"{name}: expected shape [{axes}], got {type(array).__name__}")
    if len(array.shape) != len(axes.split(",")):
        raise ValueError(f"{name}: expected shape [{axes}], got {tuple(array.shape)}")


def check_integers(name: str, dtype: Any, *, integers: bool) -> None:
    """Check that an array holds integers.

    Args:
        name: name of the argument, for messages.
        dtype: its dtype.
        integers: whether this is one of integers, which each framework tells by itself.

    Raises:
        TypeError: if it is none.
    """
    if not integers:
        raise TypeError(f"{name}: expected integers, got {dtype}")


def check_floating(name: str, dtype: Any, *, floating: bool, size: int) -> None:
    """Check that an op can compute with a dtype.

    Args:
        name: name of the argument, for messages.
        dtype: its dtype.
        floating: whether this is a floating one, which each framework tells by itself.
        size: bytes of a number.

    Raises:
        TypeError: if it is none, or of another size than 2 to 8 bytes, which promotes to nothing.
    """
    if not floating:
        raise TypeError(f"{name}: expected a floating-point dtype, got {dtype}")
    if not 2 <= size <= 8:
        raise TypeError(f"{name}: expected a dtype of 16 to 64 bits, got {dtype}")


def check_token_range(lowest: int, highest: int, vocab_size: int) -> None:
    """Check that tokens are in the vocabulary.

    Args:
        lowest: the lowest token.
        highest: the highest one.
        vocab_size: the size of the vocabulary.

    Raises:
        ValueError: if the lowest or the highest one is not.
    """
    if lowest < 0 or highest >= vocab_size:
        raise ValueError(f"token_ids: expected values in [0, {vocab_size}), got values from {lowest} to {highest}")


def check_pixels(pixels: Any, config: Any, *, floating: bool) -> None:
    """Check images.

    Args:
        pixels: images [B, height, width, C], or [B, C, height, width] with `channels_first`.
        config: `PatchEmbedConfig` that says so.
        floating: whether their dtype is floating, which each backend tells by itself.

    Raises:
        TypeError: if the pixels are integers.
        ValueError: if rank or number of channels is wrong, or patches do not tile the size.
    """
    layout = "[B, C, height, width]" if config.channels_first else "[B, height, width, C]"
    shape = tuple(pixels.shape)
    if len(shape) != 4:
        raise ValueError(f"pixels: expected 4 axes {layout}, got shape {shape}")
    if not floating:
        raise TypeError(f"pixels: expected floating point values, got {pixels.dtype}; convert and scale first")
    channels, sides = (shape[1], shape[2:]) if config.channels_first else (shape[3], shape[1:3])
    if channels != config.num_channels:
        raise ValueError(f"pixels: expected {config.num_channels} channels in {layout}, got {channels} channels")
    for name, size, patch, stride in zip(("height", "width"), sides, config.patch, config.step, strict=True):
        if size < patch or (size - patch) % stride:
            raise ValueError(
                f"pixels: expected a {name} that patches of {patch} at stride {stride} tile exactly, got {size}"
            )


def check_grid(grid: tuple[int, int], config: Any) -> None:
    """Check that a positional embedding can meet a grid.

    Args:
        grid: sides (X, Y).
        config: `PosEmbed2DConfig`.

    Raises:
        ValueError: if it is another grid although `allow_interpolation` is False.
    """
    if (
        not config.allow_interpolation and grid != config.seqlens
    ):  # sizes may be symbols, which are not compared unasked
        raise ValueError(f"x: expected the grid {config.seqlens} (allow_interpolation is False), got {grid}")
