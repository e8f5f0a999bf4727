"""A neighbour: one process that keeps N threads busy until it is killed.

usage: python -m benchmarks.busy N
"""

from __future__ import annotations

import hashlib
import sys
import threading


def work() -> None:
    """Compute outside of the interpreter's lock, so that the threads run at once."""
    while True:
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 500_000)


def main(n_threads: int) -> None:
    """Start the threads, and say so."""
    print("busy", flush=True)
    for _ in range(n_threads - 1):
        threading.Thread(target=work, daemon=True).start()
    work()


if __name__ == "__main__":
    main(int(sys.argv[1]))
