"""Settings of graph classification."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from plstm_torch.settings.base import LARGEST_SIZE, Settings, setting
from plstm_torch.settings.run import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class GraphsSettings(Settings):
    """Settings of graph classification.

    Attributes:
        dataset: name in the TUDataset collection.
        root: folder of the datasets.
        digest: SHA-256 of the data when the run began; empty before that.
        num_folds: folds of the cross-validation.
        fold: which of them is the test set.
        data_seed: of the split.
        dim: width of the model.
        num_heads: heads of each layer.
        num_blocks: pairs of a P and a D block; the direction of the edges alternates from pair to pair.
        pooling: over the nodes of a graph.
        degree_encoding: whether the degrees of a node are added to its features.
    """

    locations: ClassVar[tuple[str, ...]] = ("root",)

    dataset: str = setting("MUTAG")
    root: str = setting("data/TUDataset")
    digest: str = setting("", option=None)
    num_folds: int = setting(10, low=3, high=LARGEST_SIZE)
    fold: int = setting(0, low=0, option=None)
    data_seed: int = setting(0, low=0, high=2**32 - 1)
    dim: int = setting(96, low=1, high=LARGEST_SIZE)
    num_heads: int = setting(4, low=1, high=LARGEST_SIZE, option="heads")
    num_blocks: int = setting(2, low=1, high=LARGEST_SIZE, option="blocks")
    pooling: Literal["mean", "sum", "max"] = setting("mean")
    degree_encoding: bool = setting(True)

    def __post_init__(self) -> None:
        """Check the fold.

        Raises:
            TypeError: if a value has another type.
            ValueError: naming the field, what was expected and what came.
        """
        super().__post_init__()
        self.expect(self.fold < self.num_folds, "fold", f"0 to num_folds-1={self.num_folds - 1}")


GRAPHS_TRAINING = TrainingSettings(epochs=100, batch_size=64, learning_rate=1e-3, warmup_epochs=5.0)
