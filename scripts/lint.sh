#!/bin/sh
# All static checks. usage: lint.sh FOLDER-OF-PROGRAMS
set -eu
bin=$1
PATH="$bin:$PATH" # cython-lint calls pycodestyle
export PATH
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/cython-lint" src
"$bin/mypy"
"$bin/python" scripts/check_layout.py
"$bin/python" scripts/check_declarations.py
"$bin/python" scripts/gen_stubs.py --check
"$bin/python" scripts/gen_option_types.py --check
"$bin/python" scripts/gen_request_types.py --check
