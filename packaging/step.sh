#!/usr/bin/env bash
# Runs a build step only when its inputs changed since it last succeeded, and says which and how long it took.
#
# usage: step.sh NAME STAMP INPUT... -- COMMAND...
set -euo pipefail
name=$1 stamp=$2; shift 2
inputs=(); while [ "$1" != -- ]; do inputs+=("$1"); shift; done; shift
digest=$(find "${inputs[@]}" \( -name node_modules -o -name dist -o -name test-results -o -name target \) -prune -o -type f -print0 |
  LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d ' ' -f 1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$digest" ]; then echo "$name: up to date"; exit 0; fi
echo "$name: building"
began=$SECONDS
"$@"
mkdir -p "$(dirname "$stamp")"
echo "$digest" >"$stamp"
echo "$name: built in $((SECONDS - began)) s"
