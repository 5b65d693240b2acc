"""The command line `plstm-torch`."""

from plstm_torch.cli.app import app

__all__ = ["app"]
