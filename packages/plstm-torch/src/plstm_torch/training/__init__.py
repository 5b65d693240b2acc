"""Training runs: the tasks, the loop, the run folder, pictures. Their settings are in `plstm_torch.settings`.

The names below are imported when they are asked for: the command line looks at a folder before it needs torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plstm_torch.training.loop import train
    from plstm_torch.training.run_folder import RunFolder
    from plstm_torch.training.task import Task
    from plstm_torch.training.tasks import open_task

__all__ = ["RunFolder", "Task", "open_task", "train"]
_HOMES = {"RunFolder": "run_folder", "Task": "task", "open_task": "tasks", "train": "loop"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'plstm_torch.training' has no attribute {name!r}")
    return getattr(import_module(f"plstm_torch.training.{_HOMES[name]}"), name)
