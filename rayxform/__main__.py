"""``python -m rayxform``, and the command ``rayxform``."""

import select
import sys
from typing import NoReturn

from rayxform.cli import main
from rayxform.ending import end_process


def command() -> NoReturn:
    """Run the command line, and end."""
    try:
        main()
    except SystemExit as ended:
        if not isinstance(ended.code, int):
            raise
        end_process(ended.code)
    except BrokenPipeError:
        if not _is_output_unread():
            raise
        end_process(1)


def _is_output_unread() -> bool:
    """Whether standard output is a pipe of which the reader wants no more, as ``head`` in the end."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(state & select.POLLERR for _, state in poll.poll(0))


if __name__ == "__main__":
    command()
