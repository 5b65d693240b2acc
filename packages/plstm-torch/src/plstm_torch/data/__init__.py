"""Data of the training command: digits, arrows and text.

Every item is a pure function of a seed, an epoch and an index. The order in which processes or workers ask does not
matter, and nothing has to be stored to continue an interrupted run.
"""

from plstm_torch.data.arrows import ArrowDataset, ArrowGenerator, ArrowScene
from plstm_torch.data.digits import Digits, load_digits
from plstm_torch.data.text import ByteText, load_text

__all__ = ["ArrowDataset", "ArrowGenerator", "ArrowScene", "ByteText", "Digits", "load_digits", "load_text"]
