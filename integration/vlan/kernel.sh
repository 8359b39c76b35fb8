#!/usr/bin/env bash
# Gets Debian's cloud kernel, which has 802.1Q, for guests that are booted without a disk. Nothing is installed: the
# package is downloaded (apt checks it against the signed index), taken apart into the cache, and kept.
#
# usage: kernel.sh MODULE...
#   prints the folder that holds vmlinux and the modules, then the names of each MODULE and of whatever it needs (NAME.ko
#   in the folder), in the order they are loaded in
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C
cache=${XDG_CACHE_HOME:-$HOME/.cache}/collective/guest-kernel

die() { printf 'kernel.sh: %s\n' "$*" >&2; exit 1; }

require_tools() {
  local tool missing=()
  for tool in apt-cache apt-get dpkg-deb xz zstd flock; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  [ ${#missing[@]} -eq 0 ] || die "not found: ${missing[*]}; run packaging/install-dependencies.sh"
}

# The newest kernel the mirror offers; a machine without package lists uses what is kept.
newest() {
  apt-cache search --names-only '^linux-image-[0-9][0-9.]*(-[0-9]+)?([+]deb[0-9]+)?-cloud-amd64$' | cut -d ' ' -f 1 |
    sort -V | tail -n 1
}

kept() { find "$cache" -mindepth 2 -maxdepth 2 -name complete -printf '%h\n' 2>/dev/null | sort -V | tail -n 1; }

# unpack PACKAGE FOLDER
unpack() {
  local package=$1 folder=$2 work
  work=$(mktemp -d "$cache/work.XXXXXX")
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$work'" EXIT
  chmod 755 "$work"
  (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$package" >&2) ||
    die "cannot download $package; run apt-get update as root, or check the network"
  dpkg-deb -x "$work"/*.deb "$work/tree"
  mkdir "$work/out"
  extract_vmlinux "$work"/tree/boot/vmlinuz-* "$work/out/vmlinux"
  mv "$work"/tree/lib/modules/*/kernel "$work/out/modules"
  touch "$work/out/complete"
  rm -rf "$folder"
  mv "$work/out" "$folder"
  rm -rf "$work"
  trap - EXIT
}

# extract_vmlinux BZIMAGE OUT: booting the inner image spares a slow machine the unpacking.
extract_vmlinux() {
  local offset
  for offset in $(grep -abo $'\x28\xb5\x2f\xfd' "$1" | cut -d : -f 1); do
    # What follows the image inside of the file is an error to zstd, and none to us.
    tail -c "+$((offset + 1))" "$1" | zstd -dcq >"$2" 2>/dev/null || true
    [ "$(head -c 4 "$2")" != $'\x7fELF' ] || return 0
  done
  die "$1 holds no kernel packed with zstd"
}

declare -A seen=()
ordered=()

# take FOLDER MODULE: unpacks a module and what it needs, which its own description names.
take() {
  local folder=$1 name=$2 file needs need
  [ -z "${seen[$name]:-}" ] || return 0
  seen[$name]=1
  if [ ! -f "$folder/$name.ko" ]; then
    file=$(find "$folder/modules" -name "$name.ko.xz" -o -name "${name//_/-}.ko.xz" | head -n 1)
    [ -n "$file" ] || die "the kernel in $folder has no module $name"
    xz -dc "$file" >"$folder/$name.ko.part"
    mv "$folder/$name.ko.part" "$folder/$name.ko"
  fi
  needs=$(tr '\0' '\n' <"$folder/$name.ko" | grep -a '^depends=' | head -n 1)
  for need in $(tr ',' ' ' <<<"${needs#depends=}"); do take "$folder" "${need//-/_}"; done
  ordered+=("$name")
}

main() {
  local package folder module
  require_tools
  mkdir -p "$cache"
  exec 9>"$cache/.lock"
  flock 9
  package=$(newest)
  if [ -n "$package" ]; then
    folder=$cache/${package#linux-image-}
    [ -f "$folder/complete" ] || unpack "$package" "$folder"
  else
    folder=$(kept)
    [ -n "$folder" ] || die "apt knows no linux-image-*-cloud-amd64; run apt-get update as root on Debian 12"
  fi
  for module in "$@"; do take "$folder" "$module"; done
  printf '%s\n' "$folder" "${ordered[@]}"
}

main "$@"
