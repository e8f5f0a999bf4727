#!/bin/sh
# Make the virtual environment of the checkout, and install the packages of dependency groups of pyproject.toml.
# usage: setup_venv.sh PYTHON VENV GROUP...
set -eu
python=$1 venv=$2
shift 2

fail() { echo "cyllama: $*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "$python is missing; install it (Debian, Ubuntu: apt-get install python3)."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old; Python 3.11 or later is needed (make PYTHON=python3.12)."
sh "$(dirname "$0")/system_packages.sh" build "$python"

if [ ! -x "$venv/bin/python" ]; then
    echo "-- making the virtual environment $venv"
    "$python" -m venv "$venv"
fi
if ! "$venv/bin/python" -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 1))'; then
    "$venv/bin/python" -m pip install --quiet --upgrade "pip>=25.1" ||
        fail "pip could not reach the package index; check 'pip config list' and the network, then run make again."
fi
for group in "$@"; do
    echo "-- installing the Python packages of the group $group"
    "$venv/bin/python" -m pip install --quiet --group "$group" ||
        fail "pip could not install the packages of the group '$group' in pyproject.toml; the reason stands above."
    touch "$venv/.group-$group"
done
