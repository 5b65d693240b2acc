"""Models under torch.compile, DistributedDataParallel and torch.func."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch._dynamo
from torch import Tensor, distributed, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from plstm_config import change, pLSTMLMModelConfig, pLSTMVisionModelConfig
from plstm_testing.tolerances import assert_close
from plstm_torch import build
from plstm_torch.context import ContextModule

DTYPES = {"dtype": "float64", "param_dtype": "float64"}
CONFIGS = {
    "vision": pLSTMVisionModelConfig(
        dim=8, num_heads=2, num_blocks=1, patch_size=4, resolution=(8, 12), output_shape=(3,), **DTYPES
    ),
    "language": pLSTMLMModelConfig(vocab_size=11, embedding_dim=8, num_blocks=1, **DTYPES),
}


def compiled_in_place(block: nn.Module) -> nn.Module:
    block.compile(backend="eager")
    return block


# what users put around the blocks of a model
AROUND = {
    "its own compile": compiled_in_place,
    "torch.compile": lambda block: torch.compile(block, backend="eager"),
    "a checkpoint": checkpoint_wrapper,
}
LAYERS_OF_LANGUAGE = pLSTMLMModelConfig(vocab_size=11, embedding_dim=8, num_blocks=2, **DTYPES)


def model_input(name: str) -> Tensor:
    return torch.rand(2, 8, 12, 3, dtype=torch.float64) if name == "vision" else torch.randint(0, 11, (2, 6))


@pytest.fixture(params=CONFIGS)
def case(request: pytest.FixtureRequest, randomize: Callable[[nn.Module], nn.Module]) -> tuple[nn.Module, Tensor]:
    return randomize(build(CONFIGS[request.param])), model_input(request.param)


def gradients(model: nn.Module, x: Tensor, wrapped: nn.Module | None = None) -> dict[str, Tensor]:
    model.zero_grad()
    (model if wrapped is None else wrapped)(x).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


# warnings of torch about itself
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch._prims_common.check.*:FutureWarning")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_without_graph_breaks(case: tuple[nn.Module, Tensor], backend: str) -> None:
    model, x = case
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    assert_close(compiled(x).detach(), model(x).detach())
    eager = gradients(model, x)
    for name, gradient in gradients(model, x, compiled).items():
        assert_close(gradient, eager[name], kind="gradient", label=name)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_distributed_data_parallel_finds_no_unused_parameter(case: tuple[nn.Module, Tensor]) -> None:
    model, x = case
    eager = gradients(model, x)
    wrapped = nn.parallel.DistributedDataParallel(model)
    # the second pass raises if the first one left a parameter without a gradient
    for _ in range(2):
        for name, gradient in gradients(model, x, wrapped).items():
            assert_close(gradient, eager[name], kind="gradient", label=name)


def test_per_sample_gradients_by_vmap(case: tuple[nn.Module, Tensor]) -> None:
    model, x = case
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(values: dict[str, Tensor], sample: Tensor) -> Tensor:
        return torch.func.functional_call(model, values, (sample.unsqueeze(0),)).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    eager = gradients(model, x)
    for name, gradient in per_sample.items():
        assert_close(gradient.sum(0), eager[name], kind="gradient", label=name)


def test_checkpointing_changes_no_gradient(case: tuple[nn.Module, Tensor]) -> None:
    model, x = case
    eager = gradients(model, x)
    model.set_gradient_checkpointing()
    for name, gradient in gradients(model, x).items():
        assert_close(gradient, eager[name], kind="gradient", label=name)


# warnings of torch about itself
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch._prims_common.check.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_blocks_compile_one_by_one(randomize: Callable[[nn.Module], nn.Module]) -> None:
    """Regional compilation: all blocks of a model share one program, and other lengths keep the numbers."""
    torch.compiler.reset()
    compiled, plain = randomize(build(LAYERS_OF_LANGUAGE)), build(LAYERS_OF_LANGUAGE)
    plain.load_state_dict(compiled.state_dict())
    counters = torch._dynamo.utils.counters
    counters.clear()
    for block in compiled.block_stack.blocks:
        block.compile(fullgraph=True, backend="eager", dynamic=True)
    compiled(torch.randint(0, 11, (3, 20)))
    assert counters["stats"]["unique_graphs"] == 1
    tokens = torch.randint(0, 11, (2, 27))
    eager = gradients(plain, tokens)
    for name, gradient in gradients(compiled, tokens).items():
        assert_close(gradient, eager[name], kind="gradient", label=name)


# warnings of torch about itself
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch._prims_common.check.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_blocks_of_images_share_one_program_for_all_sides(randomize: Callable[[nn.Module], nn.Module]) -> None:
    """Square images come first, and as many as they have rows of patches; the numbers of the config are constants."""
    torch.compiler.reset()
    config = change(CONFIGS["vision"], {"num_blocks": 2})
    compiled, plain = randomize(build(config)), build(config)
    plain.load_state_dict(compiled.state_dict())
    programs: list[torch.fx.GraphModule] = []

    def keep(program: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        programs.append(program)
        return program

    for block in compiled.block_stack.blocks:
        block.compile(fullgraph=True, backend=keep, dynamic=True)
    for batch, height, width in ((3, 12, 12), (2, 8, 20), (5, 24, 16)):
        x = torch.rand(batch, height, width, 3, dtype=torch.float64)
        eager = gradients(plain, x)
        for name, gradient in gradients(compiled, x).items():
            assert_close(gradient, eager[name], kind="gradient", label=name)
    assert len(programs) == 1
    assert not any(node.target == "item" for node in programs[0].graph.nodes)


# warnings of torch about itself
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch._prims_common.check.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("around", AROUND)
def test_what_is_around_blocks_passes_on_what_is_asked_of_them(
    around: str, randomize: Callable[[nn.Module], nn.Module]
) -> None:
    torch.compiler.reset()
    compiled, plain = randomize(build(LAYERS_OF_LANGUAGE)), build(LAYERS_OF_LANGUAGE)
    plain.load_state_dict(compiled.state_dict())
    blocks = compiled.block_stack.blocks
    for index, block in enumerate(list(blocks)):
        blocks[index] = AROUND[around](block)
    packed, borders = torch.randint(0, 11, (1, 7)), torch.tensor([0, 3, 7])
    assert_close(compiled(packed, cu_seqlens=borders).detach(), plain(packed, cu_seqlens=borders).detach())
    tokens = torch.randint(0, 11, (2, 6))
    (output, cache), (expected, expected_cache) = (m(tokens, return_cache=True) for m in (compiled, plain))
    assert_close(output.detach(), expected.detach())
    step, expected_step = (m.step(tokens[:, 0], c)[0] for m, c in ((compiled, cache), (plain, expected_cache)))
    assert_close(step.detach(), expected_step.detach())


def test_hooks_of_every_block_and_layer_are_called(case: tuple[nn.Module, Tensor]) -> None:
    model, x = case
    expected = model(x).detach()
    parts = {name: part for name, part in model.named_modules() if name and isinstance(part, ContextModule)}
    assert len(parts) >= 3
    seen: list[str] = []
    for name, part in parts.items():
        part.register_forward_pre_hook(lambda *_, name=name: seen.append(name))
        part.register_full_backward_hook(lambda *_, name=name: seen.append(name))
    output = model(x)
    assert_close(output.detach(), expected)
    assert sorted(seen) == sorted(parts)
    output.sum().backward()
    assert sorted(seen) == sorted([*parts] * 2)
