"""Training runs: the tasks, the loop, the run folder, pictures. Their settings are in `plstm_torch.settings`."""

from plstm_torch.training.loop import train
from plstm_torch.training.run_folder import RunFolder
from plstm_torch.training.task import Task
from plstm_torch.training.tasks import open_task

__all__ = ["RunFolder", "Task", "open_task", "train"]
