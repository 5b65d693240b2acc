"""The commands of `plstm-torch`."""

from typing import Annotated

import typer

from plstm_torch.cli import check, runs, show, train
from plstm_torch.cli.errors import OneLineErrors
from plstm_torch.version import __version__

app = typer.Typer(
    cls=OneLineErrors,
    name="plstm-torch",
    help="pLSTM in PyTorch: train on digits, arrows or text, use what was trained, check the installation.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(train.app, name="train")
app.add_typer(show.app, name="show")
app.command("eval")(runs.evaluate)
app.command("generate")(runs.generate)
app.command("check")(check.check)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Print the version or the help where there is no command.

    Args:
        context: of the command line.
        version: whether to print the version.
    """
    if version:
        print(f"plstm-torch {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit
