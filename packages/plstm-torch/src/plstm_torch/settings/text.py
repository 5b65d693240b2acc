"""Settings of the language model on text files."""

from dataclasses import dataclass
from typing import ClassVar

from plstm_torch.settings.base import LARGEST_COUNT, LARGEST_SIZE, Settings, setting
from plstm_torch.settings.run import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class TextSettings(Settings):
    """Settings of the language model.

    Attributes:
        files: paths of the text, which is read one file after the other.
        tokenizer: tokenizer.json of Hugging Face's library (package tokenizers), which the run folder keeps a copy of;
            None: every byte is a token.
        digest: SHA-256 of text and tokenizer when the run began; empty before that.
        held_out: share of the text that becomes the held-out tail, which is measured once.
        validation: share of the rest, its end, that chooses the epoch and is not trained on; 0: the last epoch is
            taken.
        context_length: tokens in a training window.
        streams: pieces of the tail that are read side by side, each after `context_length` tokens of what precedes it.
        dim: width of the model.
        num_heads: heads of each layer.
        num_blocks: number of blocks.
        state_size: JT = JV = JO of the layers.
        transition_bias: initial bias of the transitions, from the first head to the last. The transition is
            tanh(5 bias) at first: 0.1 remembers a token or two, 1 the whole text.
        epoch_windows: an epoch is one pass over the head, or this many windows if that is less.
        sample_length: tokens that are generated at the end.
    """

    locations: ClassVar[tuple[str, ...]] = ("files", "tokenizer")

    files: tuple[str, ...] = setting(option="file")
    tokenizer: str | None = setting(None)
    digest: str = setting("", option=None)
    held_out: float = setting(0.1, above=0, below=1)
    validation: float = setting(0.05, low=0, below=1)
    context_length: int = setting(256, low=1, high=LARGEST_SIZE)
    streams: int = setting(8, low=1, high=LARGEST_SIZE)
    dim: int = setting(128, low=1, high=LARGEST_SIZE)
    num_heads: int = setting(4, low=1, high=LARGEST_SIZE, option="heads")
    num_blocks: int = setting(4, low=1, high=LARGEST_SIZE, option="blocks")
    state_size: int = setting(1, low=1, high=LARGEST_SIZE)
    transition_bias: tuple[float, float] = setting((0.1, 1.0))
    epoch_windows: int = setting(4096, low=1, high=LARGEST_COUNT)
    sample_length: int = setting(400, low=0, high=LARGEST_COUNT)

    def __post_init__(self) -> None:
        """Check the files.

        Raises:
            TypeError: if a value has another type.
            ValueError: naming the field, what was expected and what came.
        """
        super().__post_init__()
        self.expect(bool(self.files), "files", "at least one")


TEXT_TRAINING = TrainingSettings(
    epochs=4, batch_size=8, learning_rate=3e-3, warmup_epochs=0.5, weight_decay=0.1, final_learning_rate=0.05
)
