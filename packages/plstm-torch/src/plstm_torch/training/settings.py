"""What a run is made of, as it stands in the run folder's training.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

SCHEMA_VERSION = 1
DTYPES = ("float32", "bfloat16", "float16", "float64")
_Settings = TypeVar("_Settings")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the weights are trained. A resumed run keeps all of these.

    Attributes:
        epochs: passes over the training data.
        steps: optimizer steps in all; None means `epochs` decides. The learning rate ends with the last step.
        batch_size: samples in a step, over all processes together.
        learning_rate: highest learning rate, reached after the warm-up.
        final_learning_rate: share of `learning_rate` where the cosine ends.
        warmup_epochs: epochs over which the learning rate rises in a straight line.
        weight_decay: of AdamW, for the weights of linear maps and convolutions only (see `parameter_groups`).
        beta1: decay of AdamW's running mean.
        beta2: decay of AdamW's running variance.
        gradient_clip: largest norm of the whole gradient; 0 switches clipping off.
        seed: of the initial weights, the order of the data, its distortions and drop path.
        dtype: in which the model computes; parameters are float32, or float64 with "float64".
    """

    epochs: int = 10
    steps: int | None = None
    batch_size: int = 64
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.01
    warmup_epochs: float = 1.0
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.99
    gradient_clip: float = 1.0
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: naming the field, its value and what was expected.
        """
        for name in ("epochs", "batch_size"):
            _expect(self, name, getattr(self, name) >= 1, "at least 1")
        _expect(self, "steps", self.steps is None or self.steps >= 1, "at least 1")
        _expect(self, "learning_rate", self.learning_rate > 0, "a positive number")
        _expect(self, "final_learning_rate", 0 <= self.final_learning_rate <= 1, "a number from 0 to 1")
        for name in ("warmup_epochs", "weight_decay", "gradient_clip", "seed"):
            _expect(self, name, getattr(self, name) >= 0, "0 or more")
        for name in ("beta1", "beta2"):
            _expect(self, name, 0 <= getattr(self, name) < 1, "a number from 0 to below 1")
        _expect(self, "dtype", self.dtype in DTYPES, f"one of {', '.join(DTYPES)}")


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """Where and how a run is computed. A resumed run may change these.

    Attributes:
        device: "auto" (CUDA where there is a GPU), "cpu", "cuda" or "cuda:1".
        threads: of torch on the CPU; None leaves torch's choice. Another number may change the last bits of the result.
        workers: processes that prepare batches; 0 prepares them in the training process.
        checkpoint_every: steps between two checkpoints; there is one after each epoch in any case.
    """

    device: str = "auto"
    threads: int | None = None
    workers: int = 0
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: naming the field, its value and what was expected.
        """
        _expect(self, "threads", self.threads is None or self.threads >= 1, "at least 1")
        _expect(self, "workers", self.workers >= 0, "0 or more")
        _expect(self, "checkpoint_every", self.checkpoint_every >= 1, "at least 1")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Everything that defines a run.

    Attributes:
        task: "digits", "arrows", "text" or "graphs".
        data: the task's own settings.
        training: how the weights are trained.
        machine: where and how it is computed.
    """

    task: str
    data: dict[str, Any] = field(default_factory=dict)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)

    def to_dict(self) -> dict[str, Any]:
        """Return what training.json holds."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> "RunSettings":
        """Read what `to_dict` wrote.

        Args:
            mapping: contents of training.json.

        Returns:
            The settings.

        Raises:
            ValueError: if the version is another one, a part is missing or a field is unknown.
        """
        version = mapping.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema_version={version!r}: expected {SCHEMA_VERSION}")
        missing = [name for name in ("task", "data", "training", "machine") if name not in mapping]
        if missing:
            raise ValueError(f"missing {', '.join(missing)}")
        training = from_mapping(TrainingSettings, mapping["training"])
        machine = from_mapping(MachineSettings, mapping["machine"])
        return cls(task=mapping["task"], data=dict(mapping["data"]), training=training, machine=machine)


def from_mapping(cls: type[_Settings], mapping: Mapping[str, Any]) -> _Settings:
    """Make a settings dataclass from JSON: lists become tuples, unknown fields are refused.

    Args:
        cls: the dataclass.
        mapping: field names and values.

    Returns:
        The settings.

    Raises:
        ValueError: if a field is unknown; the message lists the known ones.
    """
    known = [entry.name for entry in fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(set(mapping) - set(known))
    if unknown:
        raise ValueError(f"unknown setting {', '.join(unknown)}; {cls.__name__} has {', '.join(known)}")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in mapping.items()})


def _expect(settings: object, name: str, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name}={getattr(settings, name)!r}: expected {expected}")
