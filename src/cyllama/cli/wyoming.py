"""``cyllama wyoming``: speech recognition for Home Assistant."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-m", "--model", default="tiny.en", help="a file or a name of a model (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=10300, help="port; 0: any free one (default: %(default)s)")
    allowed = "an address or a network that may connect, such as 192.168.1.0/24; needed with --host"
    parser.add_argument("--allow", action="append", default=[], metavar="NETWORK", help=allowed)
    parser.add_argument("--max-seconds", type=float, default=300.0, help="longest audio (default: %(default)s)")
    parser.add_argument("--max-clients", type=int, default=16, help="clients at the same time (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    from cyllama.whisper import Whisper
    from cyllama.whisper.wyoming import WyomingServer

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")

    async def serve(whisper: Whisper) -> None:
        server = WyomingServer(
            whisper,
            Path(arguments.model).stem if Path(arguments.model).is_file() else arguments.model,
            allow=arguments.allow,
            max_seconds=arguments.max_seconds,
            max_clients=arguments.max_clients,
        )
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C is a KeyboardInterrupt
                asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        async with server.listen(arguments.host, arguments.port) as (host, port):
            print(f"transcribing with {arguments.model} on {host}:{port}", flush=True)
            await stopped.wait()

    with contextlib.closing(Whisper(arguments.model)) as whisper:
        asyncio.run(serve(whisper))
    return 0
