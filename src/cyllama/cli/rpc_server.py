"""``cyllama rpc-server``: let other machines compute on the devices of this one."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=50052, help="port; 0: any free one (default: %(default)s)")
    allowed = "an address or a network that may connect, such as 192.168.1.0/24; needed with --host"
    parser.add_argument("--allow", action="append", default=[], metavar="NETWORK", help=allowed)
    device = "a device of `cyllama info`; default: the GPUs, or the CPU if there are none"
    parser.add_argument("--device", action="append", metavar="NAME", help=device)
    parser.add_argument("--threads", type=int, help="threads of the CPU device for each client")
    parser.add_argument("--cache", metavar="FOLDER", help="keep large tensors in FOLDER, which has no limit")
    parser.add_argument("--max-clients", type=int, default=8, help="clients at the same time (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    from cyllama.rpc import PROTOCOL, RPCServer

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    server = RPCServer(
        arguments.host, arguments.port, devices=arguments.device, n_threads=arguments.threads, allow=arguments.allow,
        cache_folder=arguments.cache, max_clients=arguments.max_clients,
    )  # fmt: skip

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    host, port = server.address
    print(f"serving {', '.join(server.devices)} on {host}:{port}, protocol {'.'.join(map(str, PROTOCOL))}", flush=True)
    if arguments.allow:
        print("WARNING: the protocol has neither encryption nor authentication, and a client can crash or read this\n"
              "process. Use it only in a network that you trust.", file=sys.stderr, flush=True)  # fmt: skip
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
    return 0
