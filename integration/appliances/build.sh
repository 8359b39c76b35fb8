#!/usr/bin/env bash
# Builds the two appliances of the demonstration: real disks, made from Debian packages, the same bytes every time.
#
# usage: build.sh [--out DIR] [--cache DIR] [--verify-reproducible] [gateway|workspace|wire|station ...]
#   --out DIR              where NAME/{appliance.yaml,system.raw} go; default: the user's cache, collective/appliances
#   --cache DIR            where downloaded packages are kept; default: the user's cache, collective/debs
#   --verify-reproducible  build each name twice from the kept packages, compare, leave --out alone
#
# Nothing is mounted where others can see it: the work is done on a tmpfs in a mount and process namespace of its own,
# so a build that dies leaves nothing behind. An appliance appears in --out when it is complete, never before.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C TZ=UTC

# Every time stamp in an image; a fixed moment, because the digest of an image is its name.
export SOURCE_DATE_EPOCH=1735689600
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
names=(gateway workspace)
cache_home=${XDG_CACHE_HOME:-$HOME/.cache}/collective
work_mib=6144

. "$here/disk.sh"

say() { printf 'appliances: %s\n' "$*"; }
die() { printf 'appliances: %s\n' "$*" >&2; exit 1; }

# step N OF WHAT: announces one step of a build; the next step (or finished) prints how long it took.
step_began=
step() {
  finished
  step_began=$SECONDS step_what="$3"
  printf 'appliances: %s: step %s/%s: %s\n' "$name" "$1" "$2" "$3"
}
finished() { [ -z "$step_began" ] || say "$name:   $((SECONDS - step_began)) s"; step_began=; }

main() {
  local out=$cache_home/appliances cache=$cache_home/debs verify= chosen=() name
  while [ $# -gt 0 ]; do
    case $1 in
    --inside) shift; build_inside "$@"; return ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    --cache) cache=${2:?--cache needs a folder}; shift 2 ;;
    --verify-reproducible) verify=1; shift ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; return ;;
    gateway | workspace | wire | station) chosen+=("$1"); shift ;;
    *) die "unknown argument '$1': $0 --help shows what there is" ;;
    esac
  done
  [ ${#chosen[@]} -gt 0 ] || chosen=("${names[@]}")
  require_tools
  mkdir -p "$out" "$cache"
  exec 9>"$cache/.lock"
  flock 9
  for name in "${chosen[@]}"; do
    if [ -n "$verify" ]; then verify_reproducible "$name" "$cache"; else build_if_changed "$name" "$out" "$cache"; fi
  done
}

require_tools() {
  local tool missing=()
  for tool in debootstrap mcopy mkfs.vfat syslinux mke2fs debugfs dumpe2fs cpio gzip sfdisk unshare flock tar apt-get; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || missing+=("$tool")
  done
  [ -e "$syslinux_mbr" ] || missing+=("$syslinux_mbr")
  [ ${#missing[@]} -eq 0 ] || die "missing: ${missing[*]}. Install them with packaging/install-dependencies.sh"
}

# The stamp is the digest of everything of ours that goes into an appliance; packages are added by name in those files.
input_digest() {
  (cd "$here" && find build.sh disk.sh initrd "$1" -type f -printf '%m %p\n' | sort -k 2 &&
    find build.sh disk.sh initrd "$1" -type f -print0 | sort -z | xargs -0 sha256sum) | sha256sum | cut -d ' ' -f 1
}

build_if_changed() {
  local name=$1 out=$2/$1 cache=$3 digest began=$SECONDS
  digest=$(input_digest "$name")
  if [ -s "$out/system.raw" ] && [ -s "$out/appliance.yaml" ] && [ "$(cat "$out/.stamp" 2>/dev/null)" = "$digest" ]; then
    say "$name: cached"
    return
  fi
  mkdir -p "$out"
  rm -f "$out/.stamp"
  build "$name" "$out/system.raw.new" "$cache"
  cp "$here/$name/appliance.yaml" "$out/appliance.yaml.new"
  mv "$out/system.raw.new" "$out/system.raw"
  mv "$out/appliance.yaml.new" "$out/appliance.yaml"
  printf '%s\n' "$digest" >"$out/.stamp.new"
  mv "$out/.stamp.new" "$out/.stamp"
  say "$name: built in $((SECONDS - began)) s: $(du -h --apparent-size "$out/system.raw" | cut -f 1) disk, $(du -h "$out/system.raw" | cut -f 1) of it content"
}

verify_reproducible() {
  local name=$1 cache=$2 scratch first second
  scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/collective-verify.XXXXXX")
  trap "rm -rf '$scratch'" EXIT
  build "$name" "$scratch/first.raw" "$cache"
  build "$name" "$scratch/second.raw" "$cache"
  first=$(sha256sum <"$scratch/first.raw") second=$(sha256sum <"$scratch/second.raw")
  if [ "$first" != "$second" ]; then
    trap - EXIT
    die "$name: two builds differ; both are kept in $scratch, compare them with cmp -l"
  fi
  rm -rf "$scratch"
  trap - EXIT
  say "$name: reproducible: ${first%% *}"
}

# build NAME FILE CACHE: one whole build in namespaces of its own.
build() {
  [ "$(id -u)" = 0 ] || die "must be root: debootstrap and chroot need it. Try: sudo $0 $1"
  unshare --mount --pid --fork --kill-child --mount-proc --propagation private bash "$here/build.sh" --inside "$@" 9>&-
}

build_inside() {
  local name=$1 file=$2 cache=$3 work
  work=$(mktemp -d)
  # Process 1 of this namespace is the build, so the tmpfs goes with it; only the empty folder is left to remove.
  trap "cd /; rm -f '$file.part'; umount '$work' 2>/dev/null; rmdir '$work' 2>/dev/null || true" EXIT
  mount -t tmpfs -o "size=${work_mib}m,mode=755,dev,suid,exec" collective-build "$work"
  . "$here/$name/make.sh"
  make_appliance "$work" "$cache" "$file.part"
  finished
  mv "$file.part" "$file"
}

# fetch CACHE PACKAGE...: the packages this machine's apt would install; one that is kept already is used as it is.
fetch() {
  local cache=$1 package
  shift
  for package; do
    newest_deb "$cache" "$package" >/dev/null && continue
    (cd "$cache" && apt-get -qq -o APT::Sandbox::User=root download "$package") ||
      die "cannot download the package $package: check the network and run 'apt-get update'"
  done
}

# newest_deb CACHE PACKAGE: path of the newest kept version, or failure.
newest_deb() {
  local found
  found=$(find "$1" -maxdepth 1 -name "$2_*.deb" | sort -V | tail -n 1)
  [ -n "$found" ] && printf '%s\n' "$found"
}

unpack() {
  local cache=$1 root=$2 package
  shift 2
  for package; do dpkg-deb -x "$(newest_deb "$cache" "$package")" "$root"; done
}

# kernel_package CACHE: the name of the versioned package behind linux-image-cloud-amd64.
kernel_package() {
  local kept
  kept=$(find "$1" -maxdepth 1 -name 'linux-image-[0-9]*-cloud-amd64_*.deb' | sort -V | tail -n 1)
  if [ -n "$kept" ]; then basename "${kept%%_*}"; return; fi
  apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1 | grep . ||
    die "apt knows no linux-image-cloud-amd64: run 'apt-get update'"
}

main "$@"
