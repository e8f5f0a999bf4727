#!/bin/sh
# bin/: the engines' native programs, which find their libraries beside the place they were built in.
set -eu
mkdir -p bin
for program in build/engines/bin/*; do
    case $program in *.so) continue ;; esac
    ln -sf "../$program" "bin/$(basename "$program")"
done
