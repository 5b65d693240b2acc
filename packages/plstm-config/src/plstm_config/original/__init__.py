"""Configs and weights of the original research project, read as ours."""

from plstm_config.original.configs import MigrationWarning, migrate
from plstm_config.original.weights import convert_weights

__all__ = ["MigrationWarning", "convert_weights", "migrate"]
