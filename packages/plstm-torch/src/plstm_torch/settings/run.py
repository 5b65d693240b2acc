"""What every run is made of, as it stands in the run folder's training.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from plstm_torch.settings.base import LARGEST_COUNT, LARGEST_SEED, LARGEST_SIZE, Settings, from_mapping, setting

SCHEMA_VERSION = 2
# runs of version 1 had no validation data: they trained on all of the rest, and their last epoch was measured
_WITHOUT_VALIDATION: dict[str, dict[str, Any]] = {
    "digits": {"validation": 0.0},
    "images": {"validation": 0.0},
    "text": {"validation": 0.0},
    "arrows": {"validation_images": 0},
}
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
        dtype: in which the model computes, now and when it is used; parameters are float32, or float64 with "float64".
        precision: "bf16" trains under torch's autocast: linear maps and convolutions in bfloat16, gates, states and
            parameters in float32. What is saved computes in `dtype`.
        extensions: optimizer steps that were added to a finished run, by each time that it was extended.
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
    precision: Literal["32", "bf16"] = setting("32")
    extensions: tuple[int, ...] = setting((), low=1, high=LARGEST_COUNT, option=None)

    def __post_init__(self) -> None:
        """Check what excludes each other.

        Raises:
            TypeError: if a value has another type.
            ValueError: naming the field, what was expected and what came.
        """
        super().__post_init__()
        self.expect(self.precision == "32" or self.dtype == "float32", "precision", f"32 with dtype={self.dtype!r}")


@dataclass(frozen=True, kw_only=True)
class MachineSettings(Settings):
    """Where and how a run is computed. A resumed run may change these.

    Attributes:
        device: "auto" (CUDA where there is a GPU), "cpu", "mps", "cuda" or "cuda:1".
        strategy: what several processes do: "ddp" gives each the whole model, "fsdp" spreads parameters, gradients and
            the optimizer's means over them (FSDP2). The result is the same.
        accumulate: pieces in which a process computes its share of a batch, one after the other, to save memory; the
            gradient is that of the whole batch.
        compile: whether torch compiles the model; it takes a while, and may change the last bits of the result.
        threads: of torch on the CPU; None leaves torch's choice. Another number may change the last bits of the result.
        workers: processes that prepare batches; 0 prepares them in the training process.
        checkpoint_every: steps between two checkpoints; there is one after each epoch in any case.
    """

    device: str = setting("auto")
    strategy: Literal["ddp", "fsdp"] = setting("ddp")
    accumulate: int = setting(1, low=1, high=LARGEST_SIZE)
    compile: bool = setting(False, switch=True)
    threads: int | None = setting(None, low=1, high=_MOST_THREADS)
    workers: int = setting(0, low=0, high=_MOST_WORKERS)
    checkpoint_every: int = setting(200, low=1, high=LARGEST_COUNT)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Everything that defines a run.

    Attributes:
        task: "digits", "arrows", "text", "graphs", "nodes" or "images".
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
        if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
            raise ValueError(f"schema_version: expected 1 to {SCHEMA_VERSION}, got {version!r:.80}")
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
        return cls(
            task=task, data=_migrated(task, data) if version == 1 else dict(data), training=training, machine=machine
        )


def _migrated(task: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The data settings of version 1 as they are now."""
    now = {**_WITHOUT_VALIDATION.get(task, {}), **data}
    if task == "text" and "file" in now:
        now["files"] = [now.pop("file")]
    return now


def _part(cls: Any, name: str, mapping: Any) -> Any:
    try:
        return from_mapping(cls, mapping)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}.{error}") from error
