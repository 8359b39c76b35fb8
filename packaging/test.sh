#!/usr/bin/env bash
# Everything CI runs, in the order that fails soonest, with a line of time each and the number of tests at the end.
# A failing part does not hide the later ones: all run, the exit status is the sum.
set -uo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp -d); trap 'rm -rf "$log"' EXIT
failed=() passed=0 failures=0

part() { # part NAME COMMAND...
  local name=$1 began=$SECONDS; shift
  echo "=== $name"
  if "$@" 2>&1 | tee "$log/$name"; then echo "=== $name: ok, $((SECONDS - began)) s"
  else failed+=("$name"); echo "=== $name: FAILED, $((SECONDS - began)) s"; fi
}
count() { # adds up the closing lines of cargo test, vitest and playwright
  local p f
  p=$(grep -hoE '(^test result: .* |^ *Tests +.*|^  |claims: )[0-9]+ passed' "$log"/* | grep -oE '[0-9]+ passed' | awk '{n+=$1} END {print n+0}')
  f=$(grep -hoE '(^test result: .* |^ *Tests +.*|^  |claims: .*)[0-9]+ failed' "$log"/* | grep -oE '[0-9]+ failed' | awk '{n+=$1} END {print n+0}')
  passed=$p failures=$f
}

make=(make --no-print-directory)
part build      "${make[@]}" build
part check      "${make[@]}" check
part deny       "${make[@]}" deny
part unit       "${make[@]}" unit
part policies   "${make[@]}" policy-kit
part browser    "${make[@]}" browser
part appliances "${make[@]}" appliances
part demo       "${make[@]}" demo CHECK=1
part networks   "${make[@]}" demo-networks CHECK=1
part life       "${make[@]}" demo-life CHECK=1
count
[ "$failures" -gt 0 ] || failures=${#failed[@]}
echo
[ ${#failed[@]} -eq 0 ] || echo "failed: ${failed[*]}"
echo "$passed passed, $failures failed"
[ ${#failed[@]} -eq 0 ]
