"""Training runs: settings, the loop, the run folder, pictures."""

from plstm_torch.training.loop import train
from plstm_torch.training.run_folder import RunFolder
from plstm_torch.training.settings import MachineSettings, RunSettings, TrainingSettings
from plstm_torch.training.task import Task, open_task

__all__ = ["MachineSettings", "RunFolder", "RunSettings", "Task", "TrainingSettings", "open_task", "train"]
