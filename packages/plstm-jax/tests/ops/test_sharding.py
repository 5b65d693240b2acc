"""Batches spread over devices: every device works on its own share, nothing is gathered."""

import os
import subprocess
import sys
import textwrap

PROGRAM = textwrap.dedent(
    """
    import re
    import jax, jax.numpy as jnp, numpy as np
    import plstm_native
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from plstm_config.shapes import DIRECTED, PLSTM_1D, PLSTM_2D_ORIENTED, PLSTM_GRAPH
    from plstm_config.topology import DagTopology
    from plstm_jax import ops
    from plstm_jax.check import quick_compilation
    from plstm_jax.ops._plstm_1d import chunkwise
    from plstm_testing.tolerances import assert_close

    assert len(jax.devices()) == 4
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec("batch"))
    chunkwise.SEGMENT = 0  # one segment per chunk, as in a sequence that is too long for the cache
    chunkwise.LEAST_CHUNKS = 1
    random = np.random.default_rng(0)
    # op, its layouts, keywords, sizes, transitions
    cases = [
        ("plstm_1d", PLSTM_1D, {"implementation": "chunkwise", "chunk_size": 3}, {"T": 7}, ""),
        ("plstm_1d", PLSTM_1D, {"implementation": "chunkwise", "chunk_size": 2}, {"T": 7, "JT": 2, "JV": 2}, ""),
    ]
    graph = DagTopology.from_edges(4, [(0, 1), (0, 2), (1, 3), (2, 3)])
    few = {"H": 8, "N": 4, "E": len(graph.edges), "L": len(graph.line_edges)}
    native = ("native",) if plstm_native.unavailable() is None else ()
    for implementation in ("parallel", "chunkwise", *native):
        keywords = {"implementation": implementation, "block_size": 2}
        for mode in ("general", "P", "D"):
            cases.append(("plstm_2d_oriented", PLSTM_2D_ORIENTED, keywords, {"X": 3, "Y": 4}, mode))
    if native:  # with states it walks
        walk = {"implementation": "native", "return_last_state": True}
        cases.append(("plstm_2d_oriented", PLSTM_2D_ORIENTED, walk, {"X": 3, "Y": 4}, "D"))
        for packed in (None, np.array([0, 2, 5])):
            keywords = {**walk, "cu_seqlens": packed}
            cases.append(("plstm_1d", PLSTM_1D, keywords, {"T": 5, "JT": 2, "JV": 3, "JO": 2}, ""))
            cases.append(("plstm_1d", PLSTM_1D, keywords, {"T": 5}, ""))
        cases.append(("plstm_graph", PLSTM_GRAPH, {**walk, "topology": graph}, few, ""))
    for op, layouts, keywords, sizes, mode in cases:
        sizes = {"B": 8, "O": 4, "DK": 3, "DV": 2} | {name: 1 for name in ("JQ", "JK", "JV", "JT", "JO")} | sizes
        arguments = {
            name: jnp.asarray(random.uniform(-0.7, 0.7, [sizes[letter] for letter in layout]), jnp.float32)
            for name, layout in layouts.items()
        }
        if mode == "D":
            del arguments["transition_dl"]
        if mode == "P":
            keywords = keywords | {"mode": "P"}
            arguments = {name: array for name, array in arguments.items() if name not in DIRECTED}

        def run(arguments):
            return getattr(ops, op)(**arguments, **keywords)

        def outputs_and_gradients(arguments):
            outputs, pull_back = jax.vjp(run, arguments)
            return outputs, pull_back(outputs)

        program = jax.jit(outputs_and_gradients, compiler_options=dict(quick_compilation()))
        whole = program(arguments)
        spread = jax.device_put(arguments, sharding)
        compiled = program.lower(spread).compile()
        found = re.findall("all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter", compiled.as_text())
        assert not found, (op, keywords, mode, found)
        shared = compiled(spread)
        for one, other in zip(jax.tree.leaves(shared), jax.tree.leaves(whole), strict=True):
            assert one.sharding.is_equivalent_to(sharding, one.ndim), (op, one.sharding)
            assert_close(one, other, "float32", "gradient")
    print("no collective")
    """
)


def test_four_devices_share_a_batch():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "no collective"
