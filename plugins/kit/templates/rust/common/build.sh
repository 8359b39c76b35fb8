#!/bin/sh
# Compiles the policy for wasm32 and makes a component of it. The target comes from rustup; where rustup has none,
# a distribution's compiler builds the standard library from its sources (Debian: rustc-web rust-web-src lld).
set -eu
cd "$(dirname "$0")"
target=wasm32-unknown-unknown
if rustup target list --installed 2>/dev/null | grep -qx "$target"; then
  cargo build --release --target "$target"
elif [ -f "$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/std/Cargo.toml" ]; then
  linker=$(ls /usr/bin/wasm-ld /usr/bin/wasm-ld-* 2>/dev/null | head -n 1)
  RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker" \
    cargo build --release -Z build-std=std,panic_abort --target "$target"
else
  echo "no Rust for $target: run 'rustup target add $target', or on Debian 'apt-get install rustc-web rust-web-src lld'" >&2
  exit 1
fi
"${COLLECTIVE:-collective}" policy wrap "${CARGO_TARGET_DIR:-target}/$target/release/{{snake}}.wasm" --out {{name}}.wasm
