"""``python -m rayxform``, and the command ``rayxform``."""

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
    except BrokenPipeError:  # who reads what this prints wants no more of it, as head does
        end_process(1)


if __name__ == "__main__":
    command()
