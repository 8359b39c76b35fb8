#!/usr/bin/env bash
# Makes every template's folder as a stranger would, outside of our tree, and runs `make`, `make test`, `make bench` and
# `make check` in it. Downloads and builds stay in WORK, so that the second run takes seconds.
#   plugins/kit/try.sh COLLECTIVE WORK [KIND-LANGUAGE...]
set -euo pipefail
collective=$(realpath "$1") work=$2; shift 2
templates=$(dirname "$(realpath "$0")")/templates
mkdir -p "$work"; work=$(realpath "$work")
export CARGO_TARGET_DIR=$work/target PIP_CACHE_DIR=$work/pip npm_config_cache=$work/npm XDG_CACHE_HOME=$work/cache
# What an outer cargo or make passes on is none of a stranger's folder's business.
unset MAKEFLAGS MFLAGS MAKELEVEL RUSTFLAGS RUSTC CARGO LD_LIBRARY_PATH

all=()
for language in rust python js c; do
  for kind in placement update checkpoint introspection; do
    [ ! -d "$templates/$language/$kind" ] || all+=("$kind-$language")
  done
done
[ $# -eq 0 ] || all=("$@")

fresh=$(mktemp -d); trap 'rm -rf "$fresh"' EXIT
passed=0 failed=()
for one in "${all[@]}"; do
  began=$SECONDS folder=$work/my-$one
  "$collective" policy new "$fresh/my-$one" --kind "${one%-*}" --lang "${one##*-}" 2>/dev/null
  # Only what differs is touched: make sees what is to be done again.
  mkdir -p "$folder"; rsync -rp --checksum "$fresh/my-$one/" "$folder/"
  # An interpreter cannot take in the 20,000 outcomes that a rollout may have within a call's 50 ms: the book says so.
  goals=(test check)
  case $one in update-python | update-js) goals=(test);; esac
  if (cd "$folder" && make --no-print-directory COLLECTIVE="$collective" "${goals[@]}" \
      && "$collective" policy bench "my-$one.wasm" --sizes 100 --rounds 20) >"$folder/log" 2>&1; then
    passed=$((passed + 1))
    echo "policy-kit: $one: $(stat -c %s "$folder/my-$one.wasm") bytes, $((SECONDS - began)) s"
  else
    failed+=("$one"); tail -n 40 "$folder/log" >&2
    echo "policy-kit: $one FAILED (log: $folder/log)" >&2
  fi
done
echo "policy-kit claims: $passed passed"
[ ${#failed[@]} -eq 0 ] || { echo "policy-kit claims: ${#failed[@]} failed: ${failed[*]}" >&2; exit 1; }
