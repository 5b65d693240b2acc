"""Numpy reference and conformance suite of pLSTM."""

from importlib.metadata import version

__version__ = version("plstm-testing")
__all__ = ["__version__"]
