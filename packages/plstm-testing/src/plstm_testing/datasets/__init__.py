"""Data sets that need numpy only, shared by the scripts of every framework: digits, arrows, text, TU graphs.

Numpy arrays come out, and every item is a pure function of a seed, an epoch and an index: the order in which processes
or workers ask does not matter, and nothing has to be stored to continue an interrupted run.

The extra `plstm-testing[datasets]` installs Pillow (which draws the arrows) and scikit-learn (which brings the digits
and splits folds); text, the reader of TU graphs and the random numbers do without.
"""

from plstm_testing.datasets.arrows import ArrowDataset, ArrowGenerator, ArrowScene, CachedArrows
from plstm_testing.datasets.digits import Digits, load_digits
from plstm_testing.datasets.errors import DatasetError
from plstm_testing.datasets.graphs import Fold, GraphArrays, GraphSet, split_folds
from plstm_testing.datasets.random_numbers import derive_seed, uniform
from plstm_testing.datasets.text import ByteText, Streams, load_text
from plstm_testing.datasets.tu import load_tu_dataset

__all__ = [
    "ArrowDataset",
    "ArrowGenerator",
    "ArrowScene",
    "ByteText",
    "CachedArrows",
    "DatasetError",
    "Digits",
    "Fold",
    "GraphArrays",
    "GraphSet",
    "Streams",
    "derive_seed",
    "load_digits",
    "load_text",
    "load_tu_dataset",
    "split_folds",
    "uniform",
]
