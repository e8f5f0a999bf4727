"""``python -m benchmarks``: see `command.py`."""

import sys

from benchmarks.command import main

sys.exit(main())
