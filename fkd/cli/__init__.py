"""The command line: ``python -m fkd COMMAND``, commands as `fkd.cli.frame.COMMANDS` lists them.

Each command makes the same calls as the dashboard's pages.  Nothing heavy is imported before a command
needs it, so help and lists are there at once.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code.

    Args:
        arguments: what follows the program's name; None takes ``sys.argv``.
    """
    from fkd.cli.frame import run

    return run(arguments)


__all__ = ["main"]
