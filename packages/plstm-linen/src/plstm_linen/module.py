"""The base class of every module: parameters and submodules as its config lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flax import linen as nn
from jax import Array

from plstm_config.base import Config
from plstm_config.parameters import Child, Parameter, Repeated, Weights
from plstm_config.registry import Registry
from plstm_jax.context import Context
from plstm_jax.formulas import Result, formula_of
from plstm_jax.parameters import draw_parameter, is_scanned, logical_axes
from plstm_jax.running import Steps, enter
from plstm_linen.scope import ModuleScope

REGISTRY: Registry[Module] = Registry(*(f"plstm_linen.{name}" for name in ("layers", "blocks", "models")))


class Module(Steps, nn.Module):
    """A module made from a config: `config.children()` are its submodules, `config.parameters()` its parameters.

    What it computes is the formula of its config in plstm_jax. Paths are dropped with `deterministic=False`, by the
    random numbers named "dropout"; whoever calls says so, as in linen's own modules.

    Attributes:
        config: complete config.
        remat: whether blocks of a stack are computed anew in the backward pass instead of keeping their activations.
            Read where the call begins.
        partitioned: whether `init` returns parameters in boxes (`nn.LogicallyPartitioned`) that name their axes by the
            letters of `plstm_config.parameters.AXES`. Bare arrays unless asked for; `apply` takes both.
        scan_blocks: whether equal blocks are compiled once: the parameters of all stand under `blocks`, each array with
            a first axis "layers", in place of `blocks_0`, `blocks_1`, .... None: what the config says. Folders know no
            stacks. Blocks of a graph model run in alternating directions and stay apart.
    """

    config: Config
    remat: bool = False
    partitioned: bool = False
    scan_blocks: bool | None = None

    def __init_subclass__(cls, config_class: type | None = None, **keywords: Any) -> None:
        """Let `build` find the class by the class of its configs."""
        super().__init_subclass__(**keywords)
        if config_class is not None:
            REGISTRY.register(config_class)(cls)

    def setup(self) -> None:
        """Make submodules and parameters under their canonical names."""
        for name, child in self.config.children().items():
            setattr(self, name, self._part(child))
        for name, parameter in self.config.parameters().items():
            setattr(self, name, None if parameter is None else self._parameter(name, parameter))

    def __call__(
        self,
        x: Array,
        graph: Any = None,
        edge_attr: Array | None = None,
        *,
        cache: Mapping[str, Any] | None = None,
        return_cache: bool = False,
        cu_seqlens: Any = None,
        deterministic: bool = True,
        context: Context | None = None,
    ) -> Any:
        """Compute what the config describes.

        Args:
            x: input, such as [B, T, D], [B, X, Y, D], [N, D] or tokens [B, T].
            graph: a `DagTopology`, or edges [2, E] as concrete integers, both static under `jax.jit`; or the result of
                `plstm_jax.pad_graph`, which is a pytree (modules on graphs only).
            edge_attr: features of its edges [E, De].
            cache: where the sequences stood before x: of `init_cache`, `step` or another call (sequences only).
            return_cache: whether to return the cache after the last input, too.
            cu_seqlens: borders [S + 1] of sequences packed along T (sequences only).
            deterministic: whether no paths are dropped.
            context: all of this as the formula of a parent hands it down; given, the result is always a pair.

        Returns:
            The output, with `return_cache` the pair of it and the new cache.

        Raises:
            TypeError: if an input has a wrong type.
            ValueError: if inputs do not fit the config, or the module cannot do what is asked.
        """
        if context is not None:
            return self._run(x, context)
        flags = {"training": not deterministic, "remat": self.remat, "return_cache": return_cache}
        entered = enter(self.config, x, graph, edge_attr, cache=cache, cu_seqlens=cu_seqlens, **flags)
        output, new_cache = self._run(*entered)
        return (output, new_cache) if return_cache else output

    def run(self, x: Array, context: Context) -> Result:
        """From an input and what stands beside it to the output and the new cache; what other modules call."""
        result: Result = self(x, context=context)
        return result

    @nn.nowrap
    def _run(self, x: Array, context: Context) -> Result:
        return formula_of(self.config)(self.config, ModuleScope(self), x, context)

    @nn.nowrap
    def _part(self, child: Child) -> Any:
        options = self._options()
        if child is None:
            return None
        if isinstance(child, Weights):
            return ParameterGroup(child, **options)  # type: ignore[arg-type]
        if not isinstance(child, Repeated):
            return build(child, **options)
        if is_scanned(self.config, self.scan_blocks):
            return build(child.config, **options)
        return [build(child.config, **options) for _ in range(child.count)]

    @nn.nowrap
    def _options(self) -> dict[str, Any]:
        return {"partitioned": self.partitioned, "scan_blocks": self.scan_blocks}

    @nn.nowrap
    def _parameter(self, name: str, parameter: Parameter) -> Array:
        draw: Callable[..., Any] = partial(draw_parameter, parameter)
        if self.has_variable("params", name):  # linen traces this for the shape alone, at every call
            draw = partial(nn.initializers.zeros, shape=parameter.shape)
        elif self.partitioned:
            draw = nn.with_logical_partitioning(draw, logical_axes(parameter))
        array: Array = self.param(name, draw)
        return array


class ParameterGroup(Module):
    """Parameters under a common name, without a formula of their own: the kernel of a convolution, a table."""


def build(config: object, **options: Any) -> Module:
    """Make the module that a config describes.

    Args:
        config: a config of `plstm_config` (or of any class that a subclass of `Module` names as its `config_class`).
        options: further fields of the module: `remat`, `partitioned`, `scan_blocks`, `name`.

    Returns:
        The module; its parameters come from `init` or from a folder.

    Raises:
        TypeError: if no module is registered for the config's class; the message lists those that are.
    """
    return REGISTRY.find(config)(config, **options)
