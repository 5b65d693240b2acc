"""pLSTM as models of Hugging Face's transformers: `pip install "plstm-torch[hf]"`.

Importing this module registers `PlstmConfig` and the models with the Auto classes.
"""

from plstm_torch.optional import require

require("transformers", "transformers", extra="hf")

from plstm_torch.hf.cache import PlstmCache  # noqa: E402
from plstm_torch.hf.configuration import PlstmConfig  # noqa: E402
from plstm_torch.hf.image_classification import PlstmForImageClassification  # noqa: E402
from plstm_torch.hf.language import PlstmForCausalLM  # noqa: E402
from plstm_torch.hf.registration import register_auto_classes  # noqa: E402

__all__ = ["PlstmCache", "PlstmConfig", "PlstmForCausalLM", "PlstmForImageClassification"]

register_auto_classes()
