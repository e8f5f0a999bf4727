#!/bin/sh
# Install the system packages that building or testing needs and that are missing: as root on Debian and Ubuntu.
# Elsewhere, print the command to type and fail. usage: system_packages.sh build|test [PYTHON]
set -eu
what=$1 python=${2:-python3}

missing=
# need PACKAGE PROGRAM...: one of the programs must exist
need() {
    package=$1
    shift
    for program in "$@"; do
        command -v "$program" >/dev/null && return 0
    done
    missing="$missing $package"
}

case $what in
build)
    # Debian splits Python: the modules of venv and the C headers are packages of their own.
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        missing="$missing python3-dev"
    need g++ c++
    ;;
test)
    need chromium chromium chromium-browser google-chrome # the tests of the page
    need ffmpeg ffmpeg                                    # videos for llava
    need fish fish                                        # shell completion
    need zsh zsh
    ;;
*)
    echo "cyllama: system_packages.sh: '$what' is not known, expected build or test" >&2
    exit 2
    ;;
esac
[ -n "$missing" ] || exit 0

# A browser without a font draws no text.
case $missing in *chromium*) missing="$missing fonts-dejavu-core" ;; esac
missing=${missing# }
command="apt-get install --no-install-recommends $missing"
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "-- installing system packages: $missing"
    if apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
        exit 0
    fi
    echo "cyllama: the system packages could not be installed; run: $command" >&2
else
    echo "cyllama: system packages are missing. On Debian or Ubuntu, run: sudo $command" >&2
fi
exit 1
