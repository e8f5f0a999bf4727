"""A competing process that keeps N threads busy until it is killed.

usage: python -m benchmarks.busy N
"""

from __future__ import annotations

import hashlib
import sys
import threading


def work() -> None:
    """Compute without the GIL, so that the threads run in parallel."""
    while True:
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 500_000)


def main(n_threads: int) -> None:
    """Start the threads, and print a line."""
    print("busy", flush=True)
    for _ in range(n_threads - 1):
        threading.Thread(target=work, daemon=True).start()
    work()


if __name__ == "__main__":
    main(int(sys.argv[1]))
