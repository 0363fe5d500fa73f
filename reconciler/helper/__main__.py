"""`python -I -m reconciler.helper`: the helper's process."""

import sys

from reconciler.helper.server import main


def run() -> None:
    """The entry point of the installed archive (docs/helper-protocol.md, Installation)."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
