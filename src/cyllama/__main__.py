"""``python -m cyllama``."""

import sys

from cyllama.cli import main

if __name__ == "__main__":
    sys.exit(main())
