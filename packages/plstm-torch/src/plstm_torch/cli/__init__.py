"""The command line `plstm-torch`. Importing it brings no torch: help and mistyped options are answered at once."""

from plstm_torch.cli.app import app

__all__ = ["app"]
