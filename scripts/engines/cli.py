"""Fetch, verify, unpack and patch the sources of the engines.

    python scripts/engines [ENGINE ...]             unpack what is not up to date
    python scripts/engines --check [ENGINE ...]     exit code 1 if something is not up to date
    python scripts/engines --update ENGINE ...      move an engine to another version or origin (make update)

A tree is replaced only when the new one is complete and every patch is applied. Its stamp depends on the source and the
patches, so a second run does nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from .errors import FetchError
from .lock import read_lock
from .trees import Places, install, is_current

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "src") not in sys.path:
    sys.path.insert(0, str(ROOT / "src"))  # cyllama.models fetches and unpacks archives


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="engines", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help="llama, whisper, sd; default: all")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="exit code 1 if something is not up to date")
    what.add_argument("--update", metavar="ENGINE", help="move this engine to another version or origin")
    parser.add_argument("--force", action="store_true", help="replace a tree that this program did not make")
    parser.add_argument("--destination", type=Path, default=ROOT / "thirdparty", help="folder of the trees")
    parser.add_argument("--lock", type=Path, default=ROOT / "thirdparty" / "engines.lock.toml")
    parser.add_argument("--patches", type=Path, default=ROOT / "thirdparty" / "patches")
    parser.add_argument("--cache", type=Path, help="folder of the archives (default: $CYLLAMA_CACHE/archives)")
    change = parser.add_argument_group("with --update")
    change.add_argument("--version", help="a version of the package")
    change.add_argument("--package", help="the package, where it changes")
    change.add_argument("--origin", metavar="pypi|npm", help="where the package is, where that changes")
    change.add_argument("--git", metavar="URL", help="a git repository")
    change.add_argument("--ref", help="a commit, tag or branch of the repository")
    change.add_argument("--submodules", metavar="A,B", help="submodules to fetch")
    change.add_argument("--archive", metavar="PATH", help="a .tar.gz, .tgz, .tar.xz or .zip file")
    change.add_argument("--tree", help="the folder of the engine in the archive or repository")
    change.add_argument("--upstream-version", help="upstream's version, where the sources do not name it")
    change.add_argument("--commit", help="upstream's commit, where the sources do not name it")
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> int:
    """Do what the options say; return the exit code."""
    places = Places(options.lock, options.patches, options.destination, options.cache)
    known = read_lock(options.lock)
    for name in [*options.engines, *([] if options.update is None else [options.update])]:
        if name not in known:
            raise FetchError(f"there is no engine {name!r}; the lock has {', '.join(known)}")
    if options.update is not None:
        from .update import Change, update

        change = Change(**{field.name: getattr(options, field.name) for field in fields(Change)})
        update(known[options.update], change, places, options.force)
        return 0
    chosen = [known[name] for name in options.engines or known]
    if options.check:
        old = [engine.target for engine in chosen if not is_current(engine, places)]
        if old:
            raise FetchError(f"not up to date: {', '.join(old)}; run: python scripts/engines")
        return 0
    for engine in chosen:
        install(engine, places, options.force)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; a failure is one sentence on standard error and exit code 1."""
    options = parse(argv)
    try:
        return run(options)
    except (FetchError, OSError) as error:  # DownloadError is an OSError
        print(f"engines: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("engines: interrupted; run it again to continue", file=sys.stderr)
        return 130
