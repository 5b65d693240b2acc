"""What the Auto classes need to know."""

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageClassification

from plstm_torch.hf.configuration import PlstmConfig
from plstm_torch.hf.image_classification import PlstmForImageClassification
from plstm_torch.hf.language import PlstmForCausalLM


def register_auto_classes() -> None:
    """Let `AutoConfig`, `AutoModelForCausalLM` and `AutoModelForImageClassification` find the classes."""
    AutoConfig.register(PlstmConfig.model_type, PlstmConfig, exist_ok=True)
    AutoModelForCausalLM.register(PlstmConfig, PlstmForCausalLM, exist_ok=True)
    AutoModelForImageClassification.register(PlstmConfig, PlstmForImageClassification, exist_ok=True)
