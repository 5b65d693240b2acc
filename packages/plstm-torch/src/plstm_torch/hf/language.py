"""The language model for transformers: forward pass, loss and generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.generation.utils import ALL_CACHE_NAMES
from transformers.utils import ModelOutput

import plstm_config
from plstm_config import pLSTMLMModelConfig
from plstm_torch.build import build
from plstm_torch.context import Cache, Context, require_causal, require_whole
from plstm_torch.hf.base import PlstmPreTrainedModel
from plstm_torch.hf.cache import PlstmCache
from plstm_torch.hf.configuration import PlstmConfig
from plstm_torch.models.language import pLSTMLMModel

# The name under which `generate` hands the cache around; another one in transformers 5.0
_CACHE = "cache" if "cache" in ALL_CACHE_NAMES else "past_key_values"


@dataclass
class PlstmCausalLMOutput(ModelOutput):
    """What `PlstmForCausalLM` returns.

    Attributes:
        loss: mean cross entropy of the next tokens, where labels were given.
        logits: logits of the token after each position [B, T, vocab_size].
        cache: the cache after the last token, with `use_cache`.
        hidden_states: embedding, outputs of the blocks, and in place of the last block's the normed features, each
            [B, T, embedding_dim], with `output_hidden_states`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    cache: PlstmCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class PlstmForCausalLM(PlstmPreTrainedModel, GenerationMixin):
    """`pLSTMLMModel` for `generate`, pipelines and the Trainer of transformers.

    Args:
        config: config of the model.

    Raises:
        TypeError: the config is none of plstm_torch.hf.
        ValueError: it describes another kind of model, or one with bidirectional layers.

    Examples:
        >>> from plstm_config import pLSTMLMModelConfig
        >>> from plstm_torch.hf import PlstmConfig, PlstmForCausalLM
        >>> config = pLSTMLMModelConfig(vocab_size=256, embedding_dim=32)
        >>> model = PlstmForCausalLM(PlstmConfig.from_plstm(config))
    """

    plain_config = pLSTMLMModelConfig

    def __init__(self, config: PlstmConfig) -> None:
        super().__init__(config)
        require_causal(self.__dict__["plain"], type(self).__name__)

    def get_input_embeddings(self) -> nn.Module:
        """The table of tokens."""
        return self.token_embedding

    def get_output_embeddings(self) -> nn.Module | None:
        """The head; None where it is the table of tokens."""
        return self.lm_head

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Module:
        """Change the number of tokens: the first rows of table and head stay, others are drawn as the config says.

        Args:
            new_num_tokens: how many; None for as many as there are.
            pad_to_multiple_of: the number is rounded up to a multiple of this.
            mean_resizing: has no effect: new rows are drawn as in a new model.

        Returns:
            The table.

        Raises:
            ValueError: if there is to be no token, or the multiple is not positive.
        """
        plain: pLSTMLMModel = self.__dict__["plain"]
        count = plain.config.vocab_size if new_num_tokens is None else new_num_tokens
        if count < 1:
            raise ValueError(f"new_num_tokens: expected at least 1, got {count}")
        if pad_to_multiple_of is not None:
            if pad_to_multiple_of < 1:
                raise ValueError(f"pad_to_multiple_of: expected at least 1, got {pad_to_multiple_of}")
            count = -(-count // pad_to_multiple_of) * pad_to_multiple_of
        if count != plain.config.vocab_size:
            config: Any = plstm_config.change(plain.config, {"vocab_size": count})
            parts = config.children()
            for name in ("token_embedding", "lm_head"):
                old: Any = getattr(self, name)
                if old is not None:
                    setattr(self, name, _with_rows_of(old, build(parts[name])))
            plain.config, self.config.config = config, plstm_config.to_dict(config)
        return self.token_embedding

    def forward(
        self,
        input_ids: Int[Tensor, "B T"] | None = None,
        attention_mask: Shaped[Tensor, "B T"] | None = None,
        inputs_embeds: Tensor | None = None,
        cache: PlstmCache | None = None,
        labels: Int[Tensor, "B T"] | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> PlstmCausalLMOutput | tuple[Any, ...]:
        """Compute logits, and the loss where labels are given.

        Args:
            input_ids: tokens [B, T]; in padding anything.
            attention_mask: one where there is a token, zero where there is padding [B, T], on either side; with a
                cache also those of the positions before. Neither logits nor cache depend on what padding holds.
            inputs_embeds: in place of the tokens what the table would give [B, T, embedding_dim].
            cache: where the sequences stood; updated.
            labels: tokens [B, T], -100 where none counts; position t predicts label t + 1, as in every model there.
            use_cache: whether to return the cache; default: only where one is given.
            output_hidden_states: whether to return the features between the blocks.
            return_dict: false for a tuple.
            logits_to_keep: number of last positions whose logits are wanted, 0 for all, or their indices.
            **kwargs: arguments of the loss; others have no effect.

        Returns:
            The outputs by name, or those that are not None as a tuple.

        Raises:
            TypeError: the tokens are no integers.
            ValueError: shapes do not fit, or a token is outside the vocabulary.
        """
        plain: pLSTMLMModel = self.__dict__["plain"]
        keep = use_cache if use_cache is not None else cache is not None
        past: Cache | None = None if cache is None else cache.states
        if attention_mask is not None:
            given = input_ids if input_ids is not None else inputs_embeds
            attention_mask = attention_mask if given is None else attention_mask[:, -given.shape[1] :]
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        encoded = plain.encode(
            input_ids, inputs_embeds, attention_mask, Context(past, keep), all_layers=bool(output_hidden_states)
        )
        if keep:
            cache = PlstmCache() if cache is None else cache
            cache.update(encoded.cache, encoded.hidden.shape[1])
        wanted = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = plain.logits(encoded.hidden[:, wanted])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        output = PlstmCausalLMOutput(loss, logits, cache if keep else None, encoded.layers)
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def prepare_inputs_for_generation(
        self,
        input_ids: Int[Tensor, "B T"],
        cache: PlstmCache | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        past_key_values: PlstmCache | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Choose what the next forward pass of `generate` reads: what the cache has not seen.

        Args:
            input_ids: all tokens so far [B, T].
            cache: where the sequences stand.
            attention_mask: of all positions so far [B, T].
            inputs_embeds: in place of the first tokens, read in the first pass [B, T, embedding_dim].
            use_cache: whether to keep the cache.
            past_key_values: the cache under the name of transformers 5.0.
            **kwargs: what `generate` hands to every model.

        Returns:
            Arguments of `forward`.

        Raises:
            ValueError: the sequences are spread over processes.
        """
        cache = past_key_values if cache is None else cache
        inputs: dict[str, Any] = {"use_cache": use_cache, "cache": cache}
        for name in ("logits_to_keep", "output_hidden_states"):
            if name in kwargs:
                inputs[name] = kwargs[name]
        seen = 0 if cache is None else cache.length
        if seen == 0:
            require_whole(self.__dict__["plain"], "generate")
        if inputs_embeds is not None and seen == 0:
            return inputs | {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask}
        if cache is None or seen == 0 or not kwargs.get("is_first_iteration", False):
            new = input_ids if cache is None or seen == 0 else input_ids[:, -1:]
        else:  # a cache of the caller's, from which a longer prompt goes on
            new = input_ids[:, seen:]
        # every token that was generated is there, also behind the end of a sequence
        mask = None if seen and new.shape[1] == 1 else attention_mask
        return inputs | {"input_ids": new, "attention_mask": mask}

    def _update_model_kwargs_for_generation(
        self, outputs: ModelOutput, model_kwargs: dict[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        updated: dict[str, Any] = super()._update_model_kwargs_for_generation(outputs, model_kwargs, **kwargs)
        if outputs.get("cache") is not None:
            updated[_CACHE] = outputs["cache"]
        return updated

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False


def _with_rows_of(old: Any, new: Any) -> nn.Module:
    """The new table or head, with the old one's rows as far as both have them."""
    new.to(old.weight.device, old.weight.dtype).dtype = old.dtype
    with torch.no_grad():
        for name, given in old.named_parameters():
            kept = min(len(given), len(getattr(new, name)))
            getattr(new, name)[:kept] = given[:kept]
            getattr(new, name).requires_grad_(given.requires_grad)
    return new.train(old.training)
