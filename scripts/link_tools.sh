#!/bin/sh
# bin/: the engines' native programs. ggml looks for its backend modules beside the program, hence the second loop.
set -eu
mkdir -p bin
for program in build/engines/bin/*; do
    case $program in *.so) continue ;; esac
    ln -sf "../$program" "bin/$(basename "$program")"
done
while read -r module; do
    ln -sf "../lib/lib$module.so" build/engines/bin/
done < build/engines/backends.txt
