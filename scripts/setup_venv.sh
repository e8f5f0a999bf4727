#!/bin/sh
# Make the virtual environment of the checkout, with everything that building, testing and linting needs.
# usage: setup_venv.sh PYTHON VENV
set -eu
python=$1 venv=$2

fail() { echo "cyllama: $*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "$python is missing; install it (Debian, Ubuntu: apt-get install python3)."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old; Python 3.11 or later is needed (make PYTHON=python3.12)."

# Debian splits Python: the modules of venv and the C headers are packages of their own.
missing=
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
"$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    missing="$missing python3-dev"
command -v c++ >/dev/null || missing="$missing g++"
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "-- installing$missing"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
            fail "could not install$missing; install them by hand, then run make again."
    else
        fail "needed and missing:$missing; install them (Debian, Ubuntu: sudo apt-get install$missing), then run make again."
    fi
fi

echo "-- making the virtual environment $venv"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --upgrade "pip>=25.1" ||
    fail "pip could not reach the package index; check 'pip config list' and the network, then run make again."
for group in build test lint bench; do
    "$venv/bin/python" -m pip install --quiet --group "$group" ||
        fail "pip could not install the packages of the group '$group' in pyproject.toml; the reason stands above."
done
touch "$venv/.ready"
