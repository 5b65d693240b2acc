"""Where epochs end, where a run ends, and the learning rate of every step, also of runs that were extended."""

from dataclasses import dataclass

from plstm_torch.settings import TrainingSettings
from plstm_torch.training.optimizer import learning_rate


@dataclass(frozen=True)
class Schedule:
    """The steps of a run. An extension is a schedule of its own: the rate rises and falls once more.

    Attributes:
        settings: of the run.
        steps_per_epoch: steps in a pass over the training data.
    """

    settings: TrainingSettings
    steps_per_epoch: int

    @property
    def ends(self) -> tuple[int, ...]:
        """The step after which the run ends, and after which each extension does."""
        ends = [self.settings.steps or self.settings.epochs * self.steps_per_epoch]
        for steps in self.settings.extensions:
            ends.append(ends[-1] + steps)
        return tuple(ends)

    @property
    def total_steps(self) -> int:
        """Steps of the run with its extensions."""
        return self.ends[-1]

    def epochs_after(self, step: int) -> int:
        """Epochs that have ended, each with a line of metrics; one that was cut short counts, and so does its rest."""
        cut = sum(end <= step and end % self.steps_per_epoch != 0 for end in self.ends)
        return step // self.steps_per_epoch + cut

    def end_of_epoch(self, step: int) -> int:
        """The step after which the epoch ends to which the next step belongs."""
        whole = (step // self.steps_per_epoch + 1) * self.steps_per_epoch
        return min([whole, *(end for end in self.ends if end > step)])

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step.

        Args:
            step: number of steps done before it.

        Returns:
            The learning rate.
        """
        begin = max([0, *(end for end in self.ends[:-1] if end <= step)])
        end = min(end for end in self.ends if end > step)
        return learning_rate(step - begin, end - begin, self.steps_per_epoch, self.settings)
