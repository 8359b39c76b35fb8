#!/usr/bin/env bash
# Checks licences, sources and bans of every crate in Cargo.lock with cargo-deny, which is installed into the folder
# given at first use. The advisory database is fetched only where the network allows it (DENY_ADVISORIES=1).
set -euo pipefail
tools=$1
if ! [ -x "$tools/bin/cargo-deny" ]; then
  echo "deny: installing cargo-deny into $tools (some minutes, once)"
  CARGO_TARGET_DIR="$tools/build" cargo install --quiet --locked --root "$tools" cargo-deny
  rm -rf "$tools/build"
fi
checks=(bans licenses sources); [ -z "${DENY_ADVISORIES:-}" ] || checks+=(advisories)
"$tools/bin/cargo-deny" --workspace --locked check "${checks[@]}"
