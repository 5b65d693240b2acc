"""`plstm-torch info`: what a saved model is."""

import json
from dataclasses import asdict
from pathlib import Path

from plstm_config.folder import read_config
from plstm_torch.info import Info, config_tree, describe
from plstm_torch.optional import UserError
from plstm_torch.settings.commands import InfoSettings


def info(settings: InfoSettings) -> int:
    """Print the numbers of a model and its config.

    Args:
        settings: which model, and how to print.

    Returns:
        The exit code.

    Raises:
        UserError: if the folder holds no model, or a damaged one.
    """
    folder = Path(settings.folder)
    try:
        found, config = describe(folder), read_config(folder)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error
    if settings.json:
        print(json.dumps(asdict(found)))
        return 0
    print(_summary(found))
    print(config_tree(config))
    return 0


def _summary(found: Info) -> str:
    rows = {"model": found.class_name, "parameters": f"{found.parameters:,}", "memory": _size(found.bytes)}
    if found.flops is not None:
        rows[f"FLOPs per {found.unit}"] = f"{found.flops:,}"
    if found.state_bytes is not None:
        rows["state of a sequence"] = _size(found.state_bytes)
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
