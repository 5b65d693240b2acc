"""Programs for other runtimes: sizes that vary, operators of torch alone, the same numbers."""

import io

import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim

import plstm_config
from plstm_config import pLSTMGraphModelConfig, pLSTMLMModelConfig, pLSTMVisionModelConfig
from plstm_config.topology import DagTopology
from plstm_testing.tolerances import assert_close
from plstm_torch import build
from plstm_torch.functional import _exponential_by_squaring

pytestmark = [
    # of the exporters themselves
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
PIXELS = [(2, 16, 20, 3), (5, 8, 32, 3), (3, 36, 12, 3)]
TOKENS = [(2, 7), (3, 2), (1, 40)]


def vision(randomize) -> nn.Module:
    config = pLSTMVisionModelConfig(
        dim=8, num_heads=2, num_blocks=1, patch_size=4, resolution=(16, 20), output_shape=(3,)
    )
    return randomize(build(config)).eval()


def language(randomize, state_size: int) -> nn.Module:
    config = plstm_config.preset(
        "plstm_lm_small", vocab_size=11, embedding_dim=16, num_blocks=1, num_heads=2, state_size=state_size
    )
    assert isinstance(config, pLSTMLMModelConfig)
    return randomize(build(config)).eval()


class OnGraph(nn.Module):
    """A graph model on a graph of its own, or on the edges that it is called with."""

    def __init__(self, model: nn.Module, graph: DagTopology | None) -> None:
        super().__init__()
        self.model, self.graph = model, graph

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor | None = None) -> torch.Tensor:
        return self.model(x, edge_index if self.graph is None else self.graph)


def graphs(randomize) -> tuple[nn.Module, DagTopology]:
    config = pLSTMGraphModelConfig(input_dim=4, dim=8, output_dim=2, num_blocks=2, num_heads=2, max_edges=4)
    graph = DagTopology.from_edges(5, [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)])
    return randomize(build(config)).eval(), DagTopology.batch([graph, graph])


def own_operators(program) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if "plstm" in str(node.target)}


def run_onnx(program, *inputs: torch.Tensor) -> list[torch.Tensor]:
    buffer = io.BytesIO()
    torch.onnx.export(program, dynamo=True, verbose=False, optimize=False).save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue())
    names = [value.name for value in session.get_inputs()]

    def run(*given: torch.Tensor) -> list[torch.Tensor]:
        feeds = {name: value.numpy() for name, value in zip(names, given, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feeds)]

    return run


@pytest.mark.slow
@torch.no_grad()
def test_vision_model_with_images_of_any_size(randomize) -> None:
    model = vision(randomize)
    batch, x, y = Dim("batch", max=64), Dim("x", min=2, max=64), Dim("y", min=2, max=64)
    program = torch.export.export(model, (torch.rand(PIXELS[0]),), dynamic_shapes=({0: batch, 1: 4 * x, 2: 4 * y},))
    assert not own_operators(program)
    run = run_onnx(program)
    for shape in PIXELS:
        pixels = torch.rand(shape)
        expected = model(pixels)
        assert_close(program.module()(pixels), expected, "float32")
        assert_close(run(pixels)[0], expected, "float32")


@torch.no_grad()
def check_texts_of_any_length(model: nn.Module) -> None:
    shapes = ({0: Dim("batch", max=64), 1: Dim("time", min=2, max=4096)},)
    program = torch.export.export(model, (torch.randint(0, 11, TOKENS[0]),), dynamic_shapes=shapes)
    assert not own_operators(program)
    run = run_onnx(program)
    for shape in TOKENS:
        tokens = torch.randint(0, 11, shape)
        expected = model(tokens)
        assert_close(program.module()(tokens), expected, "float32")
        assert_close(run(tokens)[0], expected, "float32")


@pytest.mark.parametrize("state_size", [1, 2])
def test_language_model_with_texts_of_any_length(randomize, state_size) -> None:
    check_texts_of_any_length(language(randomize, state_size))


def test_encoder_that_reads_texts_from_both_ends(randomize) -> None:
    layer = "block_stack.block.interaction_module.bidirectional"
    config = plstm_config.change(language(randomize, 2).config, {layer: True})
    check_texts_of_any_length(randomize(build(config)).eval())


class Step(nn.Module):
    """A step with its cache as flat tensors, which is what ONNX has."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, token_ids, state, window):
        cache = {"block_stack": {"0": {"interaction_module": {"state": state, "window": window}}}}
        logits, cache = self.model.step(token_ids, cache)
        inner = cache["block_stack"]["0"]["interaction_module"]
        return logits, inner["state"], inner["window"]


@torch.no_grad()
def test_step_of_the_language_model(randomize) -> None:
    model = language(randomize, 2)
    tokens = torch.randint(0, 11, (3, 6))
    inner = model.init_cache(3)["block_stack"]["0"]["interaction_module"]
    state = [inner["state"], inner["window"]]
    batch = Dim("batch", max=64)
    program = torch.export.export(Step(model), (tokens[:, 0], *state), dynamic_shapes=({0: batch},) * 3)
    assert not own_operators(program)
    run = run_onnx(program)
    expected = model(tokens)
    for time in range(6):
        logits, *state = run(tokens[:, time], *state)
        assert_close(logits, expected[:, time], "float32")


@torch.no_grad()
def test_graph_model_on_the_graph_that_it_was_exported_with(randomize) -> None:
    model, graph = graphs(randomize)
    program = torch.export.export(OnGraph(model, graph), (torch.rand(10, 4),))
    assert not own_operators(program)
    x = torch.rand(10, 4)
    assert_close(program.module()(x), model(x, graph), "float32")


def test_exported_programs_take_no_graph(randomize) -> None:
    model, graph = graphs(randomize)
    edge_index = torch.from_numpy(graph.edges.T.copy())
    with pytest.raises(TypeError, match="graph: expected a dense tensor with values, got one without"):
        torch.export.export(OnGraph(model, None), (torch.rand(10, 4), edge_index))


@torch.no_grad()
def test_jit_traces_are_right_for_other_inputs(randomize) -> None:
    model = vision(randomize)
    traced = torch.jit.trace(model, torch.rand(2, 16, 20, 3), check_trace=False)
    pixels = torch.rand(2, 16, 20, 3)
    assert_close(traced(pixels), model(pixels), "float32")


def test_the_exponential_in_products() -> None:
    matrix = (
        torch.randn(50, 4, 4, dtype=torch.float64) * torch.logspace(-3, 1.3, 50, dtype=torch.float64)[:, None, None]
    )
    skew = matrix - matrix.mT
    assert_close(_exponential_by_squaring(skew), torch.linalg.matrix_exp(skew), "float64")
