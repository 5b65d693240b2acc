"""Calling modules in plain JAX: a config, its parameters, and inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

import plstm_jax.blocks
import plstm_jax.layers
import plstm_jax.models  # the three hold the formulas
from plstm_config import pLSTM1DLayerConfig
from plstm_config.base import Config
from plstm_config.checks import check_features, check_sequence
from plstm_config.options import check_cu_seqlens
from plstm_config.parameters import Repeated
from plstm_config.weights import array_infos, check_weights
from plstm_jax.context import Cache, Context
from plstm_jax.formulas import Result, formula_of
from plstm_jax.graphs import as_topology
from plstm_jax.parameters import flatten, unstack_blocks
from plstm_jax.scope import TreeScope


def apply(
    config: Config,
    params: Mapping[str, Any],
    x: Array,
    graph: Any = None,
    edge_attr: Array | None = None,
    *,
    training: bool = False,
    remat: bool = False,
    key: Array | None = None,
    cache: Mapping[str, Any] | None = None,
    return_cache: bool = False,
    cu_seqlens: Any = None,
) -> Any:
    """Compute what a module computes.

    Args:
        config: complete config of a layer, block or model; static under `jax.jit`.
        params: its parameters as `init` makes them, or with blocks stacked by `stack_blocks`.
        x: input, such as [B, T, D], [B, X, Y, D], [N, D] or tokens [B, T].
        graph: a `DagTopology`, or the edges [2, E] of a directed acyclic graph as concrete integers, both static under
            `jax.jit`; or the result of `pad_graph`, which is a pytree (modules on graphs only).
        edge_attr: features of its edges [E, De].
        training: whether paths are dropped.
        remat: whether blocks of a stack are computed anew in the backward pass instead of keeping their activations.
        key: for dropped paths.
        cache: where the sequences stood before x: of `init_cache`, `step` or another call (modules on sequences only).
        return_cache: whether to return the cache after the last input, too.
        cu_seqlens: borders [S + 1] of sequences packed along T (modules on sequences only).

    Returns:
        The output, with `return_cache` the pair of it and the new cache.

    Raises:
        TypeError: if `config` is no config of a module, or an input has a wrong type.
        ValueError: if parameters or inputs do not fit the config, or the module cannot do what is asked.

    Examples:
        >>> import jax, jax.numpy as jnp, plstm_config, plstm_jax
        >>> config = plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2)
        >>> params = plstm_jax.init(config, jax.random.key(0))
        >>> run = jax.jit(plstm_jax.apply, static_argnums=0)  # configs are static
        >>> run(config, params, jnp.ones((3, 10, 8))).shape
        (3, 10, 8)
    """
    check_params(config, params)
    more = {"training": training, "remat": remat, "cache": cache, "return_cache": return_cache}
    given, context = enter(config, x, graph, edge_attr, cu_seqlens=cu_seqlens, **more)
    output, new_cache = formula_of(config)(config, TreeScope(config, params, key), given, context)
    return (output, new_cache) if return_cache else output


def step(config: Config, params: Mapping[str, Any], x: Array, cache: Mapping[str, Any]) -> tuple[Array, Cache]:
    """Advance sequences by one time step, in constant time.

    Args:
        config: config of a module on sequences.
        params: its parameters.
        x: the next input [B, D], or tokens [B] of a language model.
        cache: of `init_cache`, `step` or `apply`.

    Returns:
        The output without a time axis, and the new cache.

    Raises:
        ValueError: if the module is not on sequences, or x or the cache do not fit it.

    Examples:
        >>> import jax, jax.numpy as jnp, plstm_config, plstm_jax
        >>> config = plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2)
        >>> params, cache = plstm_jax.init(config, jax.random.key(0)), plstm_jax.init_cache(config, batch_size=3)
        >>> output, cache = plstm_jax.step(config, params, jnp.ones((3, 8)), cache)
        >>> output.shape
        (3, 8)
    """
    check_params(config, params)
    given, context = enter(config, x, cache=cache, return_cache=True, stepping=True)
    return formula_of(config)(config, TreeScope(config, params), given, context)


def init_cache(config: Config, batch_size: int, dtype: Any = None) -> Cache:
    """Make the cache of sequences that have not begun.

    Args:
        config: config of a module on sequences.
        batch_size: number of sequences B.
        dtype: of cached activations; None: the compute dtype of each layer.

    Returns:
        The cache, nested like the modules.

    Raises:
        TypeError: if there is no formula for the config.
        ValueError: if the module is not on sequences.

    Examples:
        >>> import jax, jax.numpy as jnp, plstm_config, plstm_jax
        >>> config = plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2, additional_convolution=False)
        >>> jax.tree.map(jnp.shape, plstm_jax.init_cache(config, batch_size=3))
        {'state': (3, 2, 4, 1, 4)}
    """
    formula_of(config)  # raises where there is none
    check_sequence(config.kind, _name(config), ["init_cache"])
    if isinstance(config, pLSTM1DLayerConfig):
        return plstm_jax.layers.empty_cache(config, batch_size, dtype)
    cache: Cache = {}
    for name, child in config.children().items():
        if isinstance(child, Repeated):
            cache |= {str(index): init_cache(child.config, batch_size, dtype) for index in range(child.count)}
        elif isinstance(child, Config) and child.kind == "sequence":
            cache[name] = init_cache(child, batch_size, dtype)
    return cache


class Steps:
    """Sequences step by step: what the modules of a library share, whose `run` takes an input and a `Context`."""

    config: Any
    run: Callable[[Array, Context], Result]

    def step(self, x: ArrayLike, cache: Mapping[str, Any]) -> Result:
        """Advance sequences by one time step, in constant time.

        Args:
            x: the next input [B, D], or tokens [B] of a language model.
            cache: of `init_cache`, `step` or a call.

        Returns:
            The output without a time axis, and the new cache.

        Raises:
            ValueError: the module is not on sequences, or x or the cache do not fit it.
        """
        return self.run(*enter(self.config, x, cache=cache, return_cache=True, stepping=True))

    def init_cache(self, batch_size: int, dtype: Any = None) -> Cache:
        """Make the cache of sequences that have not begun; needs no parameters.

        Args:
            batch_size: number of sequences B.
            dtype: of cached activations; None: the compute dtype of each layer. States are at least float32.

        Returns:
            The cache, nested like the modules.

        Raises:
            ValueError: the module is not on sequences.
        """
        return init_cache(self.config, batch_size, dtype)


def check_params(config: Config, params: Mapping[str, Any]) -> None:
    """Refuse parameters that are not those of a config, in names, shapes or types.

    Args:
        config: config of a module.
        params: nested parameters, with blocks stacked or not.

    Raises:
        TypeError: if there is no formula for the config, or the parameters are no dict.
        ValueError: if they do not fit; the message lists all that is wrong.
    """
    formula_of(config)
    if not isinstance(params, Mapping):
        raise TypeError(f"params: expected nested dicts, as plstm_jax.init makes them, got {type(params).__name__}")
    shapes = jax.eval_shape(unstack_blocks, params)  # checked as the files have them
    check_weights(config, array_infos(flatten(shapes)), source="params")


def enter(
    config: Config,
    x: Any,
    graph: Any = None,
    edge_attr: Any = None,
    *,
    cu_seqlens: Any = None,
    **more: Any,
) -> tuple[Array, Context]:
    """From what a module is called with to what its formula takes, checked; alike for every library of modules.

    Args:
        config: config of the module.
        x: its input.
        graph: a topology, a padded graph or edges, see `apply`.
        edge_attr: features of its edges.
        cu_seqlens: borders of packed sequences.
        more: further fields of the `Context`.

    Returns:
        The input as an array, and the context.

    Raises:
        TypeError: if x is no array, or the graph is none.
        ValueError: if the module cannot do what is asked.
    """
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise TypeError(f"x: expected an array, got {type(x).__name__}")
    context = Context(graph=graph, edge_attr=edge_attr, cu_seqlens=cu_seqlens, **more)
    context.check(config.kind, _name(config))
    if graph is not None:
        check_features(x, "N D", config.input_dim)  # type: ignore[attr-defined]  # as every module on graphs has it
        context = replace(context, graph=as_topology(graph, x.shape[0]))
    return jnp.asarray(x), replace(context, cu_seqlens=_borders(cu_seqlens, x))


def _borders(cu_seqlens: Any, x: Array) -> Any:
    if cu_seqlens is None or isinstance(cu_seqlens, jax.core.Tracer) or x.ndim < 2:
        return cu_seqlens
    return np.asarray(check_cu_seqlens(cu_seqlens, x.shape[1]))


def _name(config: object) -> str:
    return str(getattr(config, "class_name", type(config).__name__))
