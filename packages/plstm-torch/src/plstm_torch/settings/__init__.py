"""What the runs of each task are made of. Plain data without torch, so that the command line starts fast."""

from plstm_torch.settings.arrows import ARROW_PRESETS, ArrowsSettings
from plstm_torch.settings.base import Settings, from_mapping
from plstm_torch.settings.digits import DIGITS_TRAINING, DigitsSettings
from plstm_torch.settings.graphs import GRAPHS_TRAINING, GraphsSettings
from plstm_torch.settings.images import IMAGES_TRAINING, ImagesSettings
from plstm_torch.settings.nodes import NODES_TRAINING, NodesSettings
from plstm_torch.settings.run import MachineSettings, RunSettings, TrainingSettings
from plstm_torch.settings.text import TEXT_TRAINING, TextSettings
from plstm_torch.settings.vision import VisionSettings

TASK_SETTINGS: dict[str, type[Settings]] = {
    "digits": DigitsSettings,
    "arrows": ArrowsSettings,
    "text": TextSettings,
    "graphs": GraphsSettings,
    "nodes": NodesSettings,
    "images": ImagesSettings,
}

__all__ = [
    "ARROW_PRESETS",
    "DIGITS_TRAINING",
    "GRAPHS_TRAINING",
    "IMAGES_TRAINING",
    "NODES_TRAINING",
    "TASK_SETTINGS",
    "TEXT_TRAINING",
    "ArrowsSettings",
    "DigitsSettings",
    "GraphsSettings",
    "ImagesSettings",
    "MachineSettings",
    "NodesSettings",
    "RunSettings",
    "Settings",
    "TextSettings",
    "TrainingSettings",
    "VisionSettings",
    "from_mapping",
]
