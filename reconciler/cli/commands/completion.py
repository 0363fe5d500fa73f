"""`banger completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from reconciler.cli.terminal import put

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    For bash: `source <(banger completion bash)`; for zsh the same with zsh; for fish:
    `banger completion fish | source`. Names of VMs are completed too.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    # The template alone: click's own `source` first runs the shell to learn its version.
    script = kind(ctx.find_root().command, {}, "banger", "_BANGER_COMPLETE")
    put(script.source_template % script.source_vars())
