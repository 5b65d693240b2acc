"""Deliberately broken backends that take their input's dtype for granted: the suite must catch every one."""

from dataclasses import replace

from . import truth
from .adapter import ModuleCall, Result
from .module_mutants import ModuleMutant, OtherCalls, OtherResults


def own_dtype(call: ModuleCall, result: Result) -> Result:
    """Everything answers in the dtype of its config."""
    return replace(result, output_dtype=getattr(call.config, "dtype", call.dtype))


def narrow_stream(call: ModuleCall) -> ModuleCall:
    """The input is rounded to the dtype of the config before anything else."""
    dtype = getattr(call.config, "dtype", call.dtype)
    return replace(call, inputs={name: truth.rounded(value, dtype) for name, value in call.inputs.items()})


def input_dtype(call: ModuleCall, result: Result) -> Result:
    """Everything answers in the dtype of its input, models and linear maps, too."""
    return replace(result, output_dtype=call.dtype)


INPUT_TYPE_MUTANTS: tuple[ModuleMutant, ...] = (
    *(
        ModuleMutant("own_dtype", "input_types", OtherResults(own_dtype), name)
        for name in ("1d_scalar-bfloat16", "1d_scalar-step", "2d_fused", "2d_list", "graph_P", "graph_edge_P")
    ),
    *(
        ModuleMutant("own_dtype_of_blocks", "input_types", OtherResults(own_dtype), name)
        for name in ("pre_up", "post_up", "transformer", "vision_block", "graph_block", "graph_edge_block", "stack")
    ),
    ModuleMutant("dtype_of_the_input", "input_types", OtherResults(input_dtype), "linear"),
    ModuleMutant("dtype_of_the_input", "input_types", OtherResults(input_dtype), "vision_mean"),
    ModuleMutant("narrow_stream", "input_types", OtherCalls(narrow_stream)),
)
