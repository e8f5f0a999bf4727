#!/bin/sh
# Put the checkout into its virtual environment, once. usage: install_editable.sh PYTHON
set -eu
python=$1
stamp=$(dirname "$python")/../.installed
[ -e "$stamp" ] && [ ! pyproject.toml -nt "$stamp" ] && exit 0
echo "-- installing the checkout into its virtual environment"
"$python" -m pip install --quiet --no-build-isolation --editable .
touch "$stamp"
