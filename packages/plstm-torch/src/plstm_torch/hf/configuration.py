"""The config of Hugging Face around a config of plstm_config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

import plstm_config
from plstm_config import pLSTMLMModelConfig, pLSTMVisionModelConfig
from plstm_config.folder import DIGEST, MODEL_TYPE, SCHEMA_VERSION
from plstm_torch.version import __version__


class PlstmConfig(PretrainedConfig):
    """A config of plstm_config as one dict, with what Hugging Face keeps beside it.

    Its `config.json` is that of `save_pretrained` with more entries, so that each side
    reads the folders of the other. Only the digest of the weights is left out, which nobody updates here.

    Args:
        config: a language or vision model as plain data, as `plstm_config.to_dict` makes it. None only for the empty
            config that transformers makes to compare with.
        schema_version: of the file; must be the one of this version.
        **kwargs: fields of every config of transformers. `num_labels` or `id2label` of another number than the
            vision model has classes gives it another head.

    Raises:
        TypeError: `config` is no mapping.
        ValueError: another schema version, a config that is not valid, or one of another kind of module.
    """

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ["cache"]  # noqa: RUF012  transformers declares it so

    def __init__(
        self, config: Mapping[str, Any] | None = None, schema_version: int = SCHEMA_VERSION, **kwargs: Any
    ) -> None:
        if schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema_version: expected {SCHEMA_VERSION}, got {schema_version!r:.40}")
        kwargs.pop(DIGEST, None)
        kwargs.update(package="plstm-torch", package_version=__version__)
        self.config = None if config is None else plstm_config.to_dict(_checked(config))
        self.schema_version = schema_version
        if "id2label" not in kwargs and self.config is not None and "output_shape" in self.config:
            kwargs.setdefault("num_labels", self.config["output_shape"][0])
        super().__init__(**kwargs)

    @classmethod
    def from_plstm(cls, config: plstm_config.Config, **kwargs: Any) -> PlstmConfig:
        """Wrap a config.

        Args:
            config: of a language model or a vision model.
            **kwargs: as in the constructor.

        Returns:
            The config for transformers.

        Raises:
            TypeError: `config` is no config.
            ValueError: it is one of another kind of module.
        """
        return cls(config=plstm_config.to_dict(config), **kwargs)

    @property
    def plstm(self) -> Any:
        """The config of plstm_config, with as many classes as there are labels.

        Raises:
            ValueError: there is none.
        """
        if self.config is None:
            raise ValueError("config: expected a model's config, as PlstmConfig.from_plstm makes one, got None")
        config: Any = plstm_config.from_dict(self.config)
        if isinstance(config, pLSTMVisionModelConfig) and config.output_shape != (self.num_labels,):
            config = plstm_config.change(config, {"output_shape": (self.num_labels,)})
        return config

    def to_dict(self) -> dict[str, Any]:
        """All entries as plain data, those that `plstm_config.folder` reads among them."""
        entries: dict[str, Any] = super().to_dict()
        if self.config is not None:
            entries["config"] = plstm_config.to_dict(self.plstm)
        return entries

    @property
    def vocab_size(self) -> int | None:
        """Number of tokens of a language model."""
        return None if self.config is None else self.config.get("vocab_size")

    @property
    def hidden_size(self) -> int | None:
        """Width of the model."""
        return None if self.config is None else self.config.get("embedding_dim", self.config.get("dim"))

    @property
    def num_hidden_layers(self) -> int | None:
        """Number of blocks."""
        return None if self.config is None else self.config["num_blocks"]

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the images that a vision model is made for."""
        return None if self.config is None or "resolution" not in self.config else tuple(self.config["resolution"])

    @property
    def num_channels(self) -> int | None:
        """Channels of the images."""
        return None if self.config is None else self.config.get("num_channels")


def _checked(config: Mapping[str, Any]) -> plstm_config.Config:
    found = plstm_config.from_dict(config)
    if not isinstance(found, pLSTMLMModelConfig | pLSTMVisionModelConfig):
        raise ValueError(f"config: expected a pLSTMLMModel or a pLSTMVisionModel, got a {config['class_name']}")
    return found
