"""What the commands other than `train` are told, and where a run lives."""

from dataclasses import dataclass
from typing import Literal

from plstm_torch.settings.base import LARGEST_COUNT, LARGEST_SEED, LARGEST_SIZE, Settings, setting

_LARGEST_PICTURE = 1024
_LARGEST_DRAWN = 5000


@dataclass(frozen=True, kw_only=True)
class FolderSettings(Settings):
    """Where a run lives.

    Attributes:
        out: run folder: weights, checkpoint, metrics, pictures.
        resume: continue the run in the folder; its settings stay as they are.
        overwrite: delete the run in the folder and start anew.
    """

    out: str = setting()
    resume: bool = setting(False, switch=True)
    overwrite: bool = setting(False, switch=True)


@dataclass(frozen=True, kw_only=True)
class SingleRunSettings(FolderSettings):
    """Where a run lives, and whether it goes on beyond its end.

    Attributes:
        extend: train a finished run for this many more epochs; the learning rate rises and falls once more.
    """

    extend: int | None = setting(None, low=1, high=LARGEST_SIZE)


@dataclass(frozen=True, kw_only=True)
class PresetSettings(SingleRunSettings):
    """Where a run of arrows lives, and what it starts from.

    Attributes:
        preset: what the other options start from: quick (32 -> 64 pixels, minutes; its values are shown here), mixed
            (also smaller images) or paper (192 -> 384).
    """

    out: str = setting("runs/arrows")
    preset: Literal["quick", "mixed", "paper"] = setting("quick")


@dataclass(frozen=True, kw_only=True)
class FoldsSettings(FolderSettings):
    """Where the runs of a cross-validation live, and how many there are.

    Attributes:
        folds: how many of the folds are run; None: all.
    """

    out: str = setting("runs/graphs")
    folds: int | None = setting(None, low=1)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Settings):
    """What is measured.

    Attributes:
        folder: run folder of `plstm-torch train`.
        size: arrows: test at this size too; may be repeated.
        files: text: the file whose tail is measured; may be repeated. A run folder does not choose what is read.
        root: graphs, images: folder of the data; a run folder does not choose what is read.
        edges: nodes: CSV file of the edges; a run folder does not choose what is read.
        nodes: nodes: CSV file of the nodes.
        json: print one line of JSON instead of a table.
    """

    folder: str = setting()
    size: tuple[int, ...] = setting((), low=1, high=2**14, repeated=True)
    files: tuple[str, ...] = setting((), repeated=True, option="file")
    root: str | None = setting(None)
    edges: str | None = setting(None)
    nodes: str | None = setting(None)
    json: bool = setting(False, switch=True)


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(Settings):
    """What is generated.

    Attributes:
        folder: run folder of `plstm-torch train text`.
        prompt: text to continue.
        length: tokens to generate.
        temperature: 0 takes the most likely token.
        top_k: draw from the k most likely tokens only.
        top_p: draw from the fewest tokens that reach this probability only.
        seed: of the draws; None: another text each time.
    """

    folder: str = setting()
    prompt: str = setting("\n")
    length: int = setting(400, low=0, high=LARGEST_COUNT)
    temperature: float = setting(1.0, low=0)
    top_k: int | None = setting(None, low=1, high=LARGEST_COUNT)
    top_p: float | None = setting(None, above=0, high=1)
    seed: int | None = setting(None, low=0, high=LARGEST_SEED)


@dataclass(frozen=True, kw_only=True)
class PredictSettings(Settings):
    """Which images are classified.

    Attributes:
        folder: run folder of `plstm-torch train images`, or any folder of a vision model that takes pixels from 0 to 1.
        files: images, and folders in which all images are taken; each is fitted into the size that the model is made
            for.
        top: how many classes are named for each image, the most likely first.
        json: print a line of JSON for each image instead of a table with tabs.
    """

    folder: str = setting()
    files: tuple[str, ...] = setting(option="file")
    top: int = setting(1, low=1, high=LARGEST_COUNT)
    json: bool = setting(False, switch=True)


@dataclass(frozen=True, kw_only=True)
class CompletionSettings(Settings):
    """For which shell.

    Attributes:
        shell: bash, zsh or fish.
    """

    shell: Literal["bash", "zsh", "fish"] = setting()


@dataclass(frozen=True, kw_only=True)
class InfoSettings(Settings):
    """Which model is described.

    Attributes:
        folder: folder of save_pretrained, or run folder of `plstm-torch train`.
        json: print one line of JSON instead of a table.
    """

    folder: str = setting()
    json: bool = setting(False, switch=True)


@dataclass(frozen=True, kw_only=True)
class FieldSettings(Settings):
    """What the picture of the receptive field shows: layers whose gates are the same everywhere, or a trained model.

    Attributes:
        out: where to write the picture (.png, .svg or .pdf).
        run: folder of a vision model, a run folder or one of save_pretrained; with `image`. By gradients and by the
            gates of each layer, head and orientation.
        image: picture that this model looks at; it is fitted into the size that the model is made for.
        node: row and column of the patch that listens; None: the middle.
        size: side of the grid, without `run`.
        angle: angle of a P panel, without `run`; may be repeated. Without any: 0.2, 0.5 and 0.75.
        decay: decay of the P panels, without `run`.
    """

    out: str = setting("receptive_field.png")
    run: str | None = setting(None)
    image: str | None = setting(None)
    node: tuple[int, int] | None = setting(None, low=0, high=LARGEST_SIZE)
    size: int = setting(64, low=8, high=_LARGEST_PICTURE)
    angle: tuple[float, ...] = setting((), above=0, below=1, repeated=True)
    decay: float = setting(1.0, above=0, high=1)

    def __post_init__(self) -> None:
        """Check that model and image come together.

        Raises:
            TypeError: if a value has another type.
            ValueError: naming the field, what was expected and what came.
        """
        super().__post_init__()
        self.expect(self.image is not None or self.run is None, "image", "a picture, since there is a --run")
        self.expect(self.run is not None or self.image is None, "run", "a folder, since there is an --image")
        self.expect(self.run is not None or self.node is None, "node", "no patch without --run")


@dataclass(frozen=True, kw_only=True)
class ConvertSettings(Settings):
    """What is converted.

    Attributes:
        source: a folder with config.json and model.safetensors of any backend or version, or the weights of the
            original project: a torch checkpoint (.pt, .pth, .ckpt, .bin) or .safetensors, with `config`.
        out: folder to write: config.json and model.safetensors of this version.
        config: config of the original project (.json or .yaml), for its weights.
        entry: name of the weights in the checkpoint; None: state_dict, model or model_state_dict, if there is one.
        prefix: what stands before the names of the weights and is taken away; names without it are left out.
        overwrite: replace a model in `out`.
    """

    source: str = setting()
    out: str = setting()
    config: str | None = setting(None)
    entry: str | None = setting(None)
    prefix: str = setting("")
    overwrite: bool = setting(False, switch=True)


@dataclass(frozen=True, kw_only=True)
class GraphPictureSettings(Settings):
    """What the picture of a graph shows: layers whose gates are the same everywhere, or a trained model.

    Attributes:
        out: where to write the picture (.png, .svg or .pdf).
        run: run folder of `plstm-torch train nodes`, or one fold of `train graphs`: what a node hears of the others
            through the gates of each layer and head; with `node`, and with the data.
        node: the node that listens: its id in the file of the nodes, or its number in the graph, from 0.
        edges: nodes: CSV file of the edges; a run folder does not choose what is read.
        nodes: nodes: CSV file of the nodes.
        root: graphs: folder of the data.
        graph: graphs: number of the graph in the data, from 0.
        largest: how many nodes around the one that listens are drawn, with `run`.
        layers: layers of nodes, without `run`.
        width: nodes in a layer, without `run`.
        seed: of the graph, without `run`.
    """

    out: str = setting("graph.png")
    run: str | None = setting(None)
    node: str | None = setting(None)
    edges: str | None = setting(None)
    nodes: str | None = setting(None)
    root: str | None = setting(None)
    graph: int = setting(0, low=0, high=LARGEST_COUNT)
    largest: int = setting(200, low=1, high=_LARGEST_DRAWN)
    layers: int = setting(9, low=2, high=_LARGEST_PICTURE)
    width: int = setting(7, low=1, high=_LARGEST_PICTURE)
    seed: int = setting(0, low=0, high=LARGEST_SEED)

    def __post_init__(self) -> None:
        """Check that run and node come together.

        Raises:
            TypeError: if a value has another type.
            ValueError: naming the field, what was expected and what came.
        """
        super().__post_init__()
        self.expect(self.node is not None or self.run is None, "node", "the one that listens, since there is a --run")
        for name in ("node", "edges", "nodes", "root"):
            self.expect(self.run is not None or getattr(self, name) is None, name, "none without --run")


@dataclass(frozen=True, kw_only=True)
class CheckSettings(Settings):
    """What is checked.

    Attributes:
        device: device to check; may be repeated. Without any: all of this machine.
        dtype: dtype to check; may be repeated. Without any: all that the ops support.
    """

    device: tuple[str, ...] = setting((), repeated=True)
    dtype: tuple[str, ...] = setting((), repeated=True)
