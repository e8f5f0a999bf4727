"""Run the package: ``python scripts/engines`` or ``python -m engines``."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__:
    from .cli import main
else:  # run as a folder: sys.path holds the package itself instead of the folder above it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from engines.cli import main

sys.exit(main())
