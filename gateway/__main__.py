"""The command `tollway`, also as `python -m tollway.gateway`."""

import sys
from collections.abc import Sequence

from .cli.commands import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. `argv`: the arguments behind the program's name, by default the process's."""
    return run(sys.argv[1:] if argv is None else list(argv))


if __name__ == "__main__":
    sys.exit(main())
