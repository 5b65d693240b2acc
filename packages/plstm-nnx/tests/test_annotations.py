"""The annotations are true: whatever the shells are given and return is of the types that they name."""

import subprocess
import sys
import textwrap

PROGRAM = textwrap.dedent(
    """
    import sys, tempfile
    from jaxtyping import install_import_hook

    with install_import_hook(["plstm_nnx"], "beartype.beartype"):
        import plstm_nnx.layers, plstm_nnx.blocks, plstm_nnx.models, plstm_nnx.pretrained
    import jax
    from flax import nnx
    import plstm_nnx
    from plstm_testing.conformance.modules import call, case_named

    for name in ("language_plain", "stack_post_up", "vision_corners", "graph_model_mean"):
        asked = call(case_named("models", name))
        for scan in (False, True):
            module = plstm_nnx.build(asked.config, rngs=nnx.Rngs(0), scan_blocks=scan, remat=scan)
            jax.eval_shape(lambda: module(*asked.inputs.values(), **asked.keywords))
        with tempfile.TemporaryDirectory() as folder:
            plstm_nnx.save_pretrained(module, folder)
            plstm_nnx.from_pretrained(folder)
    tokens = jax.numpy.ones((1, 3), "int32")
    language = plstm_nnx.build(call(case_named("models", "language_plain")).config, rngs=nnx.Rngs(0))
    jax.eval_shape(lambda: language.step(tokens[:, 0], language.init_cache(1)))
    print(language.generate(tokens, 2, temperature=0.0).shape)
    """
)


def test_annotations_hold():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(1, 5)"
