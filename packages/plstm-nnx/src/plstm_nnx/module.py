"""What every module is: parameters and submodules as its config lists them, around a formula of plstm-jax."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from plstm_config.base import Config
from plstm_config.parameters import Child, Parameter, Repeated, Weights
from plstm_config.registry import Registry
from plstm_config.serialization import CONFIG_CLASSES
from plstm_jax.context import Context
from plstm_jax.formulas import Result, formula_of
from plstm_jax.parameters import init, logical_axes
from plstm_jax.running import Steps, check_params, enter
from plstm_nnx.repeated import hold_repeated
from plstm_nnx.scope import ModuleScope

REGISTRY: Registry[Module] = Registry(*(f"plstm_nnx.{name}" for name in ("layers", "blocks", "models")))


class Fixed(nnx.Variable):
    """A parameter that is saved and loaded but not trained: optimizers and gradients ask for `nnx.Param`."""


class Module(Steps, nnx.Module):
    """A module made from a config: `config.children()` are its submodules, `config.parameters()` its parameters.

    Parameters lie in the canonical layout, in which all backends save them, and carry the letters of
    `plstm_config.parameters.AXES` as logical axis names (`out_sharding`). As in flax, paths are dropped until
    `model.eval()` sets the attribute `deterministic`, since a model that trains is what most code makes first. Outside
    code registers a module for a config of its own by ``class Mine(Module, config_class=MineConfig)``.

    Args:
        config: complete config.
        rngs: streams of random numbers: "params" for the parameters, "dropout" for dropped paths.
        params: parameters to hold, nested as `plstm_jax.init` makes them; None draws them, with the numbers that
            `plstm_jax.init(config, rngs.params())` has.
        scan_blocks: whether blocks of a stack are held as one, with a first axis "layers" on each of their arrays, so
            that they are compiled once; None: what the config says. Files do not depend on it. Blocks of a graph model
            run in alternating directions and stay apart.
        remat: whether blocks of a stack are computed anew in the backward pass instead of keeping their activations.
    """

    config: Any
    deterministic: bool

    def __init_subclass__(cls, config_class: type | None = None, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if cls.__module__.startswith(f"{__package__}."):  # these have the names of the configs that they are for
            config_class = CONFIG_CLASSES.get(cls.__name__)
        if config_class is not None:
            REGISTRY.register(config_class)(cls)

    def __init__(
        self,
        config: Any,
        *,
        rngs: nnx.Rngs,
        params: Mapping[str, Any] | None = None,
        scan_blocks: bool | None = None,
        remat: bool = False,
    ) -> None:
        _check_rngs(rngs)
        self.config = config
        self.deterministic = False
        values = init(config, rngs.params()) if params is None else params
        options = {"rngs": rngs, "scan_blocks": scan_blocks, "remat": remat}
        for name, child in config.children().items():
            setattr(self, name, _submodule(child, values.get(name, {}), options))
        for name, parameter in config.parameters().items():
            setattr(self, name, None if parameter is None else _variable(parameter, values[name]))

    def __call__(
        self,
        x: ArrayLike,
        graph: Any = None,
        edge_attr: ArrayLike | None = None,
        *,
        deterministic: bool | None = None,
        cache: Mapping[str, Any] | None = None,
        return_cache: bool = False,
        cu_seqlens: Any = None,
    ) -> Any:
        """Compute what the module computes.

        Args:
            x: input, such as [B, T, D], [B, X, Y, D], pixels [B, height, width, C], tokens [B, T] or nodes [N, D].
            graph: a `DagTopology`, or the edges [2, E] of a directed acyclic graph as concrete integers, or the result
                of `plstm_jax.pad_graph`, which is a pytree (modules on graphs only).
            edge_attr: features of its edges [E, De].
            deterministic: whether no path is dropped, here and in all submodules; None: the attribute of this module,
                which `train()` and `eval()` set.
            cache: where the sequences stood before x: of `init_cache`, `step` or another call (on sequences only).
            return_cache: whether to return the cache after the last input, too.
            cu_seqlens: borders [S + 1] of sequences packed along T (modules on sequences only).

        Returns:
            The output, with `return_cache` the pair of it and the new cache.

        Raises:
            TypeError: an input has a wrong type.
            ValueError: inputs do not fit the config, or the module cannot do what is asked.
        """
        training = not (self.deterministic if deterministic is None else deterministic)
        more = {"training": training, "cache": cache, "return_cache": return_cache, "cu_seqlens": cu_seqlens}
        output, after = self.run(*enter(self.config, x, graph, edge_attr, **more))
        return (output, after) if return_cache else output

    def run(self, x: Array, context: Context) -> Result:
        """From an input and what stands beside it to the output and the new cache; what other modules call."""
        return formula_of(self.config)(self.config, ModuleScope(self), x, context)

    def set_view(self, deterministic: bool | None = None) -> dict[str, Any]:
        """What `nnx.view` calls to make another model of the same arrays, such as one for evaluation."""
        self.deterministic = self.deterministic if deterministic is None else deterministic
        return {}  # flax 0.12.4 asks for what was not used


class ParameterGroup(Module):
    """Parameters under a common name, without a function of their own: the kernel of a convolution, a table."""


def build(config: Config, *, rngs: nnx.Rngs, params: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """Make the module that a config describes.

    Args:
        config: complete config of a layer, block or model.
        rngs: streams of random numbers, see `Module`.
        params: parameters to hold instead of drawn ones, nested as `plstm_jax.init` makes them.
        options: `scan_blocks` and `remat`, see `Module`.

    Returns:
        The module, in training mode.

    Raises:
        TypeError: there is no module for the config's class (the message lists those that there are), or `rngs` are
            no streams.
        ValueError: the parameters are not those of the config.
    """
    made = REGISTRY.find(config)
    if params is not None:
        check_params(config, params)
    return made(config, rngs=rngs, params=params, **options)


def _check_rngs(rngs: Any) -> None:
    if not isinstance(rngs, nnx.Rngs):
        raise TypeError(f"rngs: expected streams of random numbers, such as nnx.Rngs(0), got {type(rngs).__name__}")


def weight_decay_mask(module: nnx.Module) -> Any:
    """Which parameters decay, as the `mask` of optimizers of optax: what multiplies an input, not biases and scales.

    In parts that are not made from a config, such as a head of one's own, whatever has more than one axis decays.

    Args:
        module: a module that `build` made, or one that holds such.

    Returns:
        True or False in place of each variable of `nnx.state(module, nnx.Param)`.
    """
    params = nnx.state(module, nnx.Param)
    return nnx.map_state(lambda path, variable: variable.get_metadata("decay", variable.ndim > 1), params)


def _submodule(child: Child, params: Any, options: Mapping[str, Any]) -> Any:
    if isinstance(child, Repeated):
        return hold_repeated(child.count, params, partial(_submodule, child.config), options)
    if child is None:
        return None
    found = ParameterGroup if isinstance(child, Weights) else REGISTRY.find(child)
    return found(child, params=params, **options)


def _variable(parameter: Parameter, value: Any) -> nnx.Variable:
    """A parameter with its logical axes, which stay names until a mesh is asked for: building needs none."""
    kind = nnx.Param if parameter.learned else Fixed
    return kind(value, out_sharding=logical_axes(parameter), eager_sharding=False, decay=parameter.decay)
