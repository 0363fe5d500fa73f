"""The entry point: the table of commands, and the one place that turns what happened into an exit code.

0 done; 1 failed; 2 usage or invalid specification; 3 differences (`plan --exit-code`); 4 not ready in time;
128+n ended by signal n; `exec` and `ssh` pass the guest's.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from reconciler import __version__
from reconciler.cli.interrupts import Interrupts
from reconciler.cli.lazy import Lazy, LazyGroup
from reconciler.lib.errors import BangerError

_ENVIRONMENT, _VMS, _CONTROLLER, _HOST = "An environment", "Its VMs", "The controller", "This host"

COMMANDS = {
    "init": Lazy("init:init", "Write a commented banger.yaml to start from.", _ENVIRONMENT),
    "validate": Lazy("validate:validate", "Check the file; all errors at once.", _ENVIRONMENT),
    "plan": Lazy("plan:plan", "Show what an apply would do, and why.", _ENVIRONMENT),
    "apply": Lazy("apply:apply", "Make the host be what the file says.", _ENVIRONMENT),
    "status": Lazy("listing:status", "List every object, observed now.", _ENVIRONMENT),
    "wait": Lazy("listing:wait", "Wait until VMs are ready, stopped or gone.", _ENVIRONMENT),
    "events": Lazy("events:events", "List what happened.", _ENVIRONMENT),
    "network": Lazy("network:network", "List the networks, and show who is on them.", _ENVIRONMENT),
    "delete": Lazy("delete:delete", "Remove an environment; its disks go to the trash.", _ENVIRONMENT),
    "ps": Lazy("listing:ps", "List the VMs.", _VMS),
    "top": Lazy("seeing:top", "Watch the VMs and what they use, on the whole screen.", _VMS),
    "ssh": Lazy("enter:ssh", "Open a shell in a VM, or run a command line there.", _VMS),
    "exec": Lazy("enter:execute", "Run a command in a VM and pass its exit code.", _VMS),
    "cp": Lazy("cp:cp", "Copy files and folders into a VM or out of it.", _VMS),
    "ssh-config": Lazy("sshconfig:ssh_config", "Have ssh, scp, sftp, rsync and editors know the VMs.", _VMS),
    "logs": Lazy("logs:logs", "Show the serial console of a VM.", _VMS),
    "console": Lazy("console:console", "Attach this terminal to the serial console of a VM.", _VMS),
    "vm": Lazy(
        "vm:vm",
        "Show, start, stop, restart, kill, restore, discard or adopt VMs, and list their ports and what they use.",
        _VMS,
    ),
    "run": Lazy("run:run", "Boot a VM for one command, or for a shell, and trash it afterwards.", _VMS),
    "workspace": Lazy("workspace:workspace", "Keep a git repository of this host and its copy in a VM together.", _VMS),
    "controller": Lazy(
        "controller:controller",
        "Watch the files and the host, and keep converging, until Ctrl-C or SIGTERM.",
        _CONTROLLER,
    ),
    "approve": Lazy("hold:approve", "Let removals go that the controller holds back.", _CONTROLLER),
    "pause": Lazy("hold:pause", "Have the controller leave a VM, or a whole environment, as it is.", _CONTROLLER),
    "resume": Lazy(
        "hold:resume", "Have the controller go on with what was paused, or was given up as contended.", _CONTROLLER
    ),
    "cache": Lazy("cache:cache", "Show what the cache and the trash hold, and prune them by the file's policy.", _HOST),
    "image": Lazy("image:image", "List the images in the cache, show, pin, lock and remove them.", _HOST),
    "system": Lazy("system:system", "Install the units and the root helper on this host, or remove them.", _HOST),
    "doctor": Lazy("doctor:doctor", "Check what this host lacks.", _HOST),
    "schema": Lazy("schema:schema", "Print a JSON schema.", _HOST),
    "version": Lazy("version:version", "Print versions.", _HOST),
    "completion": Lazy("completion:completion", "Print the completion script of a shell.", _HOST),
}


class Root(LazyGroup):
    """The group that ends the process: every way out of a command passes here."""

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *more: Any, **extra: Any
    ) -> NoReturn:
        extra["standalone_mode"] = False
        with Interrupts() as interrupts:
            try:
                code = self._run(args, prog_name or "banger", *more, **extra)
            except KeyboardInterrupt:
                code = 130
            if interrupts.exit_code is not None:
                code = interrupts.exit_code
        sys.exit(code)

    def _run(self, args: Sequence[str] | None, prog_name: str, *more: Any, **extra: Any) -> int:
        try:
            result = super().main(args, prog_name, *more, **extra)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except click.Abort:
            return 130
        except BangerError as error:
            from reconciler.cli import failures  # noqa: PLC0415  # only for a failure

            failures.show(error)
            return error.exit_code
        except SystemExit as leaving:
            # click turns a closed pipe into this; a reader that has had enough is no failure worth words.
            _drop_stdout()
            return 141 if leaving.code == 1 else int(leaving.code or 0)
        except OSError as error:
            if error.errno == errno.EPIPE:
                _drop_stdout()
                return 141
            from reconciler.cli import failures  # noqa: PLC0415

            failures.show_os_error(error)
            try:
                sys.stdout.flush()
            except OSError:
                _drop_stdout()
            return 1
        except Exception as error:
            from reconciler.cli import failures  # noqa: PLC0415

            failures.show_unexpected(error)
            return 1
        return result if isinstance(result, int) else 0


def _drop_stdout() -> None:
    """Lets the interpreter flush into nothing at its end, where it would complain of the closed pipe."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass


@click.group(
    cls=Root,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every option has a variable: --allow-recreate is BANGER_ALLOW_RECREATE. BANGER_HOME puts all state, cache "
    "and sockets below one folder. BANGER_DEBUG=1 shows tracebacks. NO_COLOR switches colours off.",
)
@click.version_option(__version__, prog_name="banger", message="%(prog)s %(version)s")
def cli() -> None:
    """Keeps the development VMs of this host in the state that a YAML file asks for."""


def main() -> NoReturn:
    """The command `banger`."""
    cli.main()
    raise AssertionError("Root.main always exits")
