#!/usr/bin/env bash
# Builds the fuzz targets and runs each for so many seconds, from its checked-in seeds and what earlier runs found.
# Fails at the end if one crashed, hung or took too much memory, with the path of the input that did it.
#   fuzz/run.sh CACHE SECONDS [TARGET...]
# To see a finding again: CACHE/fuzz-target/HOST/release/TARGET REPRODUCER
set -euo pipefail
cd "$(dirname "$0")"
cache=$1 seconds=$2; shift 2
export CARGO_TARGET_DIR=$cache/fuzz-target
host=$(rustc -vV | sed -n 's/^host: //p')
bin=$CARGO_TARGET_DIR/$host/release
# As cargo-fuzz has it, but for the sanitizer of memory: these parsers are Rust without `unsafe`, and run twice as fast
# without it. With --target the flags are for the targets only, not for build scripts.
flags=(-Cpasses=sancov-module)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=("-Cllvm-args=-sanitizer-coverage-$option")
done

targets=("$@"); [ $# -gt 0 ] || targets=($(basename -s .rs targets/*.rs))
echo "fuzz: building ${#targets[@]} targets (the first build takes some minutes)"
RUSTFLAGS="${flags[*]}" nice -n 10 cargo build --quiet --locked --release --target "$host" "${targets[@]/#/--bin=}"

failed=()
for target in "${targets[@]}"; do
  found=$cache/fuzz-corpus/$target reproducers=$cache/fuzz-reproducers/$target
  mkdir -p "$found" "$reproducers"
  log=$reproducers/log
  if "$bin/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$reproducers/" "$found" "seeds/$target" >"$log" 2>&1; then
    awk -v target="$target" '/^stat::number_of_executed_units/ {runs=$2} /cov: / {cov=$4}
      END {printf "fuzz: %-15s %10d inputs, %6d edges, no finding\n", target, runs, cov}' "$log"
  else
    failed+=("$target")
    grep -vE '^#|^stat::|^INFO' "$log" | head -40 >&2
    echo "fuzz: $target FAILED; reproducer: $(sed -n 's/.*Test unit written to //p' "$log" | tail -1) (log: $log)" >&2
  fi
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: findings in ${failed[*]}" >&2; exit 1; }
