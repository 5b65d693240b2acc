"""The suite under pytest; the plugin gives each function the checks of its group.

Run it as::

    python -m pytest -p plstm_testing.conformance.plugin --pyargs plstm_testing.conformance.suite \
        --conformance-adapter conformance/adapter.py --conformance-xfail conformance/xfail.toml
"""

from .checks import Check


def test_signatures(check: Check) -> None:
    """Every op exists under its name, with the parameters that outside code relies on."""
    check.run()


def test_values(check: Check) -> None:
    """Outputs, last states and all gradients of the generated cases, in every dtype."""
    check.run()


def test_sharing(check: Check) -> None:
    """One array under several names has no effect on numbers; its gradient is the sum over its places."""
    check.run()


def test_steps(check: Check) -> None:
    """Steps one after the other are the sequence; each has its gradients, and refuses bad input."""
    check.run()


def test_layouts(check: Check) -> None:
    """The same for arrays that are not contiguous."""
    check.run()


def test_composition(check: Check) -> None:
    """A sequence in pieces equals the whole, a grid in tiles equals the full pass."""
    check.run()


def test_long_range(check: Check) -> None:
    """Signals over long paths stay bounded and decay as the paper says."""
    check.run()


def test_errors(check: Check) -> None:
    """Bad input is refused with an error that names the argument."""
    check.run()


def test_refusals(check: Check) -> None:
    """What the backend says that it lacks, its ops refuse."""
    check.run()


def test_isolation(check: Check) -> None:
    """What is not finite reaches nothing that does not depend on it."""
    check.run()


def test_golden_ops(check: Check) -> None:
    """Ops agree with what the original project computed, gradients too."""
    check.run()


def test_golden_modules(check: Check) -> None:
    """Modules built from the original project's configs and weights agree with it, gradients too."""
    check.run()


def test_layers(check: Check) -> None:
    """Layers agree with the reference in all their modes and options, in every dtype, derivatives too."""
    check.run()


def test_models(check: Check) -> None:
    """Blocks and models agree with the reference in all their options, in every dtype, derivatives too."""
    check.run()


def test_stepped_layers(check: Check) -> None:
    """Step by step, or in pieces from cache to cache, a sequence gives what it gives as a whole."""
    check.run()


def test_packed_layers(check: Check) -> None:
    """Packed sequences give what they give one by one, whatever stands beside them."""
    check.run()


def test_input_types(check: Check) -> None:
    """Layers and blocks answer in the dtype of their input, their parts and whole models in that of their config."""
    check.run()


def test_module_errors(check: Check) -> None:
    """Modules refuse bad input in the same words everywhere."""
    check.run()


def test_initial_values(check: Check) -> None:
    """New modules hold the parameters of the table, from the distributions that their initialisers name."""
    check.run()


def test_files(check: Check) -> None:
    """Folders with config and weights are written and read as the format says, and refused if they are damaged."""
    check.run()
