"""The tasks by name. This stands above them all: no task knows of it."""

from collections.abc import Mapping
from typing import Any

from plstm_torch.optional import UserError
from plstm_torch.settings import TASK_SETTINGS, from_mapping
from plstm_torch.training.graph_task import GraphsTask
from plstm_torch.training.image_tasks import ArrowsTask, DigitsTask
from plstm_torch.training.node_task import NodesTask
from plstm_torch.training.own_images_task import ImagesTask
from plstm_torch.training.task import Task
from plstm_torch.training.text_task import TextTask

_TASKS: dict[str, Any] = {
    "digits": DigitsTask,
    "arrows": ArrowsTask,
    "text": TextTask,
    "graphs": GraphsTask,
    "nodes": NodesTask,
    "images": ImagesTask,
}


def open_task(name: str, data: Mapping[str, Any], seed: int) -> Task:
    """Make a task from its name and settings, and load or prepare its data.

    Args:
        name: one of `plstm_torch.settings.TASK_SETTINGS`.
        data: the task's settings as in training.json.
        seed: of the run.

    Returns:
        The task.

    Raises:
        UserError: if the name or a setting is unknown or out of range, or data or a package is missing.
    """
    if name not in _TASKS:
        raise UserError(f"task: expected one of {', '.join(_TASKS)}, got {name!r:.80}")
    try:
        task: Task = _TASKS[name](from_mapping(TASK_SETTINGS[name], data), seed)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    return task
