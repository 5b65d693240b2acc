"""Docstrings of the packages that know no framework: one dialect, examples that run; and the test of it."""

from textwrap import dedent

import numpy as np
import pytest

from plstm_testing.conformance import docstrings

# The checks of a group share their parameters: what `checks.Check` and the loops over groups hand on.
BRIEF = dict.fromkeys(("checks.py", "composition.py", "modules.py", "sequences.py"), "parameters of all their checks")
SPOKEN_FOR = "its module shows the use"
CONFIGS_LIKE_OTHERS = dict.fromkeys(
    (
        "ConstantInitConfig",
        "Convolution1DLayerConfig",
        "Convolution2DLayerConfig",
        "DirectLayerConfig",
        "DropPathConfig",
        "ExpExpFunctionConfig",
        "IdentityConfig",
        "LayerNormConfig",
        "LinearConfig",
        "LinspaceInitConfig",
        "LogspaceInitConfig",
        "MarkLayerConfig",
        "MultiHeadLayerNormConfig",
        "MultiHeadRMSNormConfig",
        "NormalInitConfig",
        "OnesInitConfig",
        "PassthroughLayerConfig",
        "RMSNormConfig",
        "ScaleLayerConfig",
        "SigmoidFunctionConfig",
        "SoftCapFunctionConfig",
        "SourceLayerConfig",
        "TanhFunctionConfig",
        "TokenEmbeddingConfig",
        "TransformerBlockConfig",
        "UniformInitConfig",
        "ZerosInitConfig",
    ),
    "sizes and a few numbers, as their names say",
) | {
    "Config": "what all configs inherit",
    "KeyLayerConfig": "as QueryLayerConfig",
    "ValueLayerConfig": "as QueryLayerConfig",
    "pLSTMGraphEdgeBlockConfig": "as pLSTMGraphBlockConfig",
    "LevelSchedule": "shown by level_schedule, which makes it",
    "MigrationWarning": "a warning",
}
TESTING = {
    "ArrowScene": "shown by ArrowGenerator, which makes it",
    "ByteText": "shown by load_text, which makes it",
    "CachedArrows": "an ArrowDataset that remembers",
    "DatasetError": "an error",
    "Digits": "shown by load_digits, which makes it",
    "Fold": "shown by split_folds, which makes it",
    "GraphArrays": "shown by load_tu_dataset, which makes it",
    "GraphSet": "shown by load_tu_dataset, which makes it",
    "Streams": "what a training loop holds of a ByteText",
    "Adapter": "CONTRIBUTING shows a whole one, which a test runs",
    "Check": "shown by all_checks",
    "ModuleCall": "what the suite hands to an adapter",
    "OpCall": "what the suite hands to an adapter",
    "Result": "what an adapter answers; CONTRIBUTING shows one",
    "convolution_1d": "as apply of a convolution",
    "convolution_2d": "as apply of a convolution",
    "gate": "as apply of a gate",
    "projection": "as apply of a projection",
    "transition": "as apply of a transition",
    "multi_head_norm": "as rms_norm",
    "plstm_1d_step_gradients": "as plstm_1d_gradients",
    "plstm_2d_gradients": "as plstm_1d_gradients",
    "plstm_2d_oriented_gradients": "as plstm_1d_gradients",
    "plstm_graph_gradients": "as plstm_1d_gradients",
}
PUBLIC = ("reference", "datasets", "conformance", "finite_differences", "parameters")


def seed():
    np.random.seed(0)


@pytest.mark.parametrize(("package", "brief"), [("plstm_config", {}), ("plstm_testing", BRIEF)])
def test_dialect(package, brief):
    assert docstrings.run(package, brief) == []


@pytest.mark.parametrize("package", ["plstm_config", "plstm_testing"])
def test_examples_run(package):
    assert docstrings.run_examples(package, seed) == []


def test_everything_public_has_an_example():
    config = ["plstm_config", "plstm_config.topology", "plstm_config.original"]
    assert docstrings.without_example("plstm_config", config, CONFIGS_LIKE_OTHERS) == []
    modules = [f"plstm_testing.{name}" for name in PUBLIC]
    assert docstrings.without_example("plstm_testing", modules, TESTING) == []


SOURCE = '''
    from numpy import ndarray

    __all__ = ["add", "silent", "shout"]


    def add(x: ndarray, y: ndarray) -> ndarray:
        """The sum.

        Args:
            x: one summand [N].
            z: Another one.

        Examples:
            >>> 1 + 1
            3
        """


    def silent(x):
        pass


    def shout(x: int, y: int, z: int) -> int:
        """Say it aloud.

        Parameters:
            x: what.
        """
'''


def test_faults_are_found(tmp_path, monkeypatch):
    (tmp_path / "spoken").mkdir()
    (tmp_path / "spoken" / "__init__.py").write_text(dedent(SOURCE))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [line.split(" ", 1)[1] for line in docstrings.run("spoken")]
    assert [line[:40] for line in found] == [
        "add: expected Args of x, y, got x, z"[:40],
        "add: expected a section Returns or Yields, got none"[:40],
        "add: Args, z: expected a clause from a small letter"[:40],
        "silent: expected a docstring, got none",
        "shout: expected the sections Args, Returns"[:40],
        "shout: expected Args of x, y, z, got none"[:40],
    ]
    assert ["Expected:\n    3\nGot:\n    2" in failure for failure in docstrings.run_examples("spoken", seed)] == [True]
    missing = docstrings.without_example("spoken", ["spoken"], {"shout": "loud enough", "spam": "gone"})
    assert missing == [
        "silent: expected an example, got none",
        "exceptions: expected public names without an example, got spam",
    ]
