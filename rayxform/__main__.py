"""``python -m rayxform``."""

from rayxform.cli import main

if __name__ == "__main__":
    main()
