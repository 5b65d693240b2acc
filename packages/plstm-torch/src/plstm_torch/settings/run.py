"""What every run is made of, as it stands in the run folder's training.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from plstm_torch.settings.base import LARGEST_COUNT, LARGEST_SEED, LARGEST_SIZE, Settings, from_mapping, setting

SCHEMA_VERSION = 1
_MOST_THREADS = 1024  # torch crashes where the system refuses to start them
_MOST_WORKERS = 256
_LARGEST_RATE = 1e30  # beyond that, AdamW's own numbers overflow


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """How the weights are trained. A resumed run keeps all of these.

    Attributes:
        epochs: passes over the training data.
        steps: optimizer steps in all; None means `epochs` decides. The learning rate ends with the last step.
        batch_size: samples in a step, over all processes together.
        learning_rate: highest learning rate, reached after the warm-up.
        final_learning_rate: share of `learning_rate` where the cosine ends.
        warmup_epochs: epochs over which the learning rate rises in a straight line.
        weight_decay: of AdamW, for the weights of linear maps and convolutions only (see `optimizer.decays`).
        beta1: decay of AdamW's running mean.
        beta2: decay of AdamW's running variance.
        gradient_clip: largest norm of the whole gradient; 0 switches clipping off.
        seed: of the initial weights, the order of the data, its distortions and drop path.
        dtype: in which the model computes; parameters are float32, or float64 with "float64".
    """

    epochs: int = setting(10, low=1, high=LARGEST_SIZE)
    steps: int | None = setting(None, low=1, high=LARGEST_COUNT)
    batch_size: int = setting(64, low=1, high=LARGEST_SIZE)
    learning_rate: float = setting(1e-3, above=0, high=_LARGEST_RATE)
    final_learning_rate: float = setting(0.01, low=0, high=1)
    warmup_epochs: float = setting(1.0, low=0, high=LARGEST_SIZE)
    weight_decay: float = setting(0.05, low=0, high=1e6)
    beta1: float = setting(0.9, low=0, below=1)
    beta2: float = setting(0.99, low=0, below=1)
    gradient_clip: float = setting(1.0, low=0)
    seed: int = setting(0, low=0, high=LARGEST_SEED)
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = setting("float32")


@dataclass(frozen=True, kw_only=True)
class MachineSettings(Settings):
    """Where and how a run is computed. A resumed run may change these.

    Attributes:
        device: "auto" (CUDA where there is a GPU), "cpu", "cuda" or "cuda:1".
        threads: of torch on the CPU; None leaves torch's choice. Another number may change the last bits of the result.
        workers: processes that prepare batches; 0 prepares them in the training process.
        checkpoint_every: steps between two checkpoints; there is one after each epoch in any case.
    """

    device: str = setting("auto")
    threads: int | None = setting(None, low=1, high=_MOST_THREADS)
    workers: int = setting(0, low=0, high=_MOST_WORKERS)
    checkpoint_every: int = setting(200, low=1, high=LARGEST_COUNT)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Everything that defines a run.

    Attributes:
        task: "digits", "arrows", "text", "graphs" or "images".
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
    def from_dict(cls, mapping: Any) -> "RunSettings":
        """Read what `to_dict` wrote.

        Args:
            mapping: contents of training.json.

        Returns:
            The settings.

        Raises:
            TypeError: if a part has another type.
            ValueError: if the version is another one, a part is missing, or a field is unknown or out of range.
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(f"settings: expected a JSON object, got {type(mapping).__name__}")
        version = mapping.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise ValueError(f"schema_version: expected {SCHEMA_VERSION}, got {version!r:.80}")
        missing = [name for name in ("task", "data", "training", "machine") if name not in mapping]
        if missing:
            raise ValueError(f"settings: expected the entries {', '.join(missing)}, got none")
        task, data = mapping["task"], mapping["data"]
        if not isinstance(task, str):
            raise TypeError(f"task: expected a text, got {task!r:.80}")
        if not isinstance(data, dict):
            raise TypeError(f"data: expected a JSON object, got {data!r:.80}")
        training = _part(TrainingSettings, "training", mapping["training"])
        machine = _part(MachineSettings, "machine", mapping["machine"])
        return cls(task=task, data=dict(data), training=training, machine=machine)


def _part(cls: Any, name: str, mapping: Any) -> Any:
    try:
        return from_mapping(cls, mapping)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}.{error}") from error
