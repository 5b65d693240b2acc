"""Settings of node classification on a graph of one's own."""

from dataclasses import dataclass
from typing import ClassVar

from plstm_torch.settings.base import LARGEST_SIZE, Settings, setting
from plstm_torch.settings.run import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class NodesSettings(Settings):
    """Settings of node classification.

    Attributes:
        edges: CSV file with a header and the columns source and target; what other columns hold are numbers, the
            features of the edges.
        nodes: CSV file with a header and the columns id and label, which is empty where it is not known; a column split
            says train, val or test, and what other columns hold are numbers, the features of the nodes.
        digest: SHA-256 of the files when the run began; empty before that.
        undirected: whether each edge is directed from the node that stands further up in `nodes`; otherwise the edges
            keep their direction and must hold no cycle.
        held_out: share of the nodes of each class that is measured, where there is no column split.
        validation: share of the rest that chooses the epoch; 0: the last epoch is taken.
        dim: width of the model.
        num_heads: heads of each layer.
        num_blocks: pairs of a P and a D block; the direction of the edges alternates from pair to pair.
        degree_encoding: whether the degrees of a node are added to its features.
    """

    locations: ClassVar[tuple[str, ...]] = ("edges", "nodes")

    edges: str = setting()
    nodes: str = setting()
    digest: str = setting("", option=None)
    undirected: bool = setting(False)
    held_out: float = setting(0.2, above=0, below=1)
    validation: float = setting(0.1, low=0, below=1)
    dim: int = setting(64, low=1, high=LARGEST_SIZE)
    num_heads: int = setting(4, low=1, high=LARGEST_SIZE, option="heads")
    num_blocks: int = setting(2, low=1, high=LARGEST_SIZE, option="blocks")
    degree_encoding: bool = setting(True)


# one step is a pass over the whole graph, whichever of its nodes count
NODES_TRAINING = TrainingSettings(epochs=200, batch_size=2**20, learning_rate=3e-3, warmup_epochs=10.0)
