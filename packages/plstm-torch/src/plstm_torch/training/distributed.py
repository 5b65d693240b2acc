"""One process or several, by Lightning Fabric: who computes which samples, and how gradients and sums come together.

Fabric rather than accelerate: accelerate (1.15) shards nothing on CPUs, so FSDP2 could not be tested without GPUs, and
keeps the state of the process in singletons; Fabric leaves checkpoints to us, and none of its loaders is used here.
"""

import gc
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn

from plstm_torch.optional import UserError, require
from plstm_torch.settings import MachineSettings
from plstm_torch.training.sharding import shard


@dataclass(frozen=True)
class Share:
    """Which part of everything is this process's.

    Attributes:
        rank: number of this process.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def of(self, indices: Sequence[int]) -> Sequence[int]:
        """Return this process's share of a global batch: a contiguous piece, sizes differing by one at most."""
        return indices[len(indices) * self.rank // self.size : len(indices) * (self.rank + 1) // self.size]


class World:
    """The processes of a run.

    Attributes:
        fabric: of Lightning, launched.
        share: of this process.
        device: on which this process computes.
        sharded: whether parameters are spread over the processes.
    """

    def __init__(self, fabric: Any, *, sharded: bool = False) -> None:
        """Take what `open_world` launched."""
        self.fabric, self.sharded = fabric, sharded
        self.share, self.device = Share(fabric.global_rank, fabric.world_size), fabric.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.share.rank == 0

    def sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """Add up each value over all processes, in float64 where the device has it."""
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        total = torch.tensor(list(values.values()), dtype=dtype, device=self.device)
        total = self.fabric.all_reduce(total, reduce_op="sum")
        return dict(zip(values, total.tolist(), strict=True))

    def barrier(self) -> None:
        """Wait for all processes."""
        self.fabric.barrier()

    def prepare(
        self, model: nn.Module, make_optimizer: Callable[[nn.Module], torch.optim.Optimizer], *, compiled: bool
    ) -> tuple[Any, Any]:
        """Spread a model over the processes, so that its gradients are their means.

        Args:
            model: with its weights, the same in every process; sharded in place where that was asked for.
            make_optimizer: called with the model as it then is.
            compiled: whether torch compiles it.

        Returns:
            What is called in training, and the optimizer.
        """
        parallel = self.fabric.setup_module(torch.compile(model) if compiled else model)
        return parallel, self.fabric.setup_optimizers(make_optimizer(model))


def choose_device(name: str) -> torch.device:
    """Turn a device's name into a device that exists here.

    Args:
        name: "auto", "cpu", "mps", "cuda", "cuda:1" and so on; with several processes "cuda" means one GPU each.

    Returns:
        The device.

    Raises:
        UserError: if there is no such device.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name!r}: expected auto, cpu, mps, cuda or cuda:N") from error
    if device.type == "cuda":
        index = local_rank if device.index is None else device.index
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise UserError(f"device={name!r}: torch sees {torch.cuda.device_count()} CUDA devices here")
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device={name!r}: torch sees no Metal device here")
    if device.type not in ("cpu", "mps"):
        raise UserError(f"device={name!r}: expected auto, cpu, mps, cuda or cuda:N")
    return device


@contextmanager
def open_world(machine: MachineSettings, precision: str = "32") -> Iterator[World]:
    """Join the processes that torchrun started, on this machine or several, or stand alone without torchrun.

    Args:
        machine: device and strategy.
        precision: "32", or "bf16" for autocast.

    Yields:
        The world; the process group is left at the end.

    Raises:
        UserError: if Lightning Fabric is not installed, or the device or enough of them do not exist.
    """
    fabric_module = require("lightning_fabric", "lightning-fabric")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = choose_device(machine.device)
    size, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    places: dict[str, Any] = {"accelerator": device.type, "devices": [device.index or 0]}
    if device.type == "cpu":
        places["devices"] = 1
    if size > 1:
        places = {"accelerator": device.type, "devices": local, "num_nodes": size // local}
        places["strategy"] = _strategy(machine.strategy, size)
    elif machine.strategy == "fsdp":
        raise UserError("strategy: expected ddp in a single process, got fsdp; start several with torchrun")
    plugins = [_precision(precision, device)]
    if size == 1:  # whatever a scheduler set in the environment: its processes are not ours
        environments = require("lightning_fabric.plugins.environments", "lightning-fabric")
        plugins.append(environments.LightningEnvironment())
    fabric = fabric_module.Fabric(plugins=plugins, **places)
    try:
        fabric.launch()
        yield World(fabric, sharded=size > 1 and machine.strategy == "fsdp")
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        if size > 1 and distributed.is_initialized():
            gc.collect()  # a process that ends while a sharded model still holds its group would wait for ever
            distributed.destroy_process_group()


def _strategy(name: str, size: int) -> Any:
    strategies = require("lightning_fabric.strategies", "lightning-fabric")
    environments = require("lightning_fabric.plugins.environments", "lightning-fabric")
    environment = environments.TorchElasticEnvironment()
    if name == "ddp":
        return strategies.DDPStrategy(cluster_environment=environment)
    strategy = strategies.ModelParallelStrategy(shard, data_parallel_size=size, tensor_parallel_size=1)
    strategy.cluster_environment = environment
    return strategy


def _precision(name: str, device: torch.device) -> Any:
    """Inputs are handed on as they are: a topology cannot be rebuilt, and autocast narrows what it multiplies."""
    plugins = require("lightning_fabric.plugins.precision", "lightning-fabric")
    if name == "32":
        return plugins.Precision()

    class Autocast(plugins.MixedPrecision):  # type: ignore[name-defined, misc]
        def convert_input(self, data: Any) -> Any:
            return data

    return Autocast("bf16-mixed", device.type)
