"""Numpy reference and conformance suite of pLSTM."""

from plstm_testing.version import __version__

__all__ = ["__version__"]
