#!/usr/bin/env bash
# Installs what building, testing and demonstrating Collective needs on Debian 12, and says what.
# Nothing is started and no service is enabled: the libvirt and QEMU programs are installed, not libvirt's system
# units, and daemons that a package would start are held back by a policy-rc.d that exists only while this runs.
#
# usage: install-dependencies.sh [--list]
set -euo pipefail

# libvirt 11 and QEMU 10: the first releases with revert of external snapshots that hold memory.
backports=(libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients libvirt-dev qemu-system-x86 qemu-utils)
main=(
  ca-certificates                 # cargo and npm over TLS
  build-essential pkg-config      # native build steps of crates
  iproute2 nftables procps        # the kernel's network tools: nft for netd; ip and tests' probes
  python3 e2fsprogs mtools dosfstools syslinux syslinux-common fdisk debootstrap busybox-static cpio xz-utils  # appliance disks
  zstd                            # the kernel of netd's VLAN tests
  rustc-web rust-web-src lld      # policies: Rust's standard library for wasm32 without rustup
  clang wasi-libc libclang-rt-dev-wasm32 python3-venv  # policies in C and in Python (JavaScript: Node.js)
  docker-registry                 # a real registry for the tests of policies' artifacts; no service is started
  dnsmasq-base                    # routers' leases, names and advertisements; a program without a service
  tcpdump curl jq                 # proofs on the wire
  nbdkit fio rsync iperf3         # figures: other servers, block clients and updates beside ours; streams over a bridge
  transmission-daemon             # another client in the swarm
  restic                          # reads our backups, and we its; the rival of their figure
  libnbd-bin                      # other block clients: nbdinfo, nbdcopy
  chromium                        # browser tests
)

if [ "${1:-}" = --list ]; then printf '%s\n' "${backports[@]}" "${main[@]}"; exit 0; fi

. /etc/os-release
if [ "${ID:-}" != debian ] || [ "${VERSION_CODENAME:-}" != bookworm ]; then
  echo "install-dependencies: this is ${PRETTY_NAME:-an unknown system}, the packages are those of Debian 12 (bookworm)." >&2
  echo "Install the equivalents of these yourself: $0 --list" >&2
  exit 1
fi
installed() { dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii'; }
missing=(); for p in "${backports[@]}" "${main[@]}"; do installed "$p" || missing+=("$p"); done
libvirt_old() { ! dpkg --compare-versions "$(dpkg-query -W -f '${Version}' libvirt-daemon 2>/dev/null || echo 0)" ge 11; }
if [ ${#missing[@]} -eq 0 ] && ! libvirt_old; then echo "dependencies: all $((${#backports[@]} + ${#main[@]})) packages are installed"; exit 0; fi
if [ "$(id -u)" != 0 ]; then echo "install-dependencies: must be root to apt-get install: ${missing[*]}" >&2; exit 1; fi
echo "dependencies: installing ${missing[*]}"

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
repository() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' "Codename: $1" | head -n 1; }
if [ -z "$(repository bookworm-backports)" ]; then
  # The mirror this machine already uses also carries the backports suite.
  mirror=$(repository bookworm)
  [ -n "$mirror" ] || { echo "install-dependencies: no Debian mirror found in /etc/apt; add bookworm-backports yourself" >&2; exit 1; }
  printf 'Types: deb\nURIs: %s\nSuites: bookworm-backports\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
    "$mirror" >/etc/apt/sources.list.d/collective-backports.sources
  echo "dependencies: added the bookworm-backports suite (/etc/apt/sources.list.d/collective-backports.sources)"
  apt-get update -q
fi

# A start is denied while this runs. The mark tells our file from an administrator's, should we be killed before removing it.
policy=/usr/sbin/policy-rc.d mark='# collective: install-dependencies.sh'
ours() { grep -qxF "$mark" "$policy" 2>/dev/null; }
if [ ! -e "$policy" ] || ours; then printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"; chmod 755 "$policy"; fi
enabled() { find /etc/systemd/system -type l -path '*.wants/*' 2>/dev/null | sort; }
enabled_before=$(enabled) pins=$(mktemp)
tidy() {
  rm -f "$pins"
  if ours; then rm -f "$policy"; fi
  # Debian's packages enable their units when installed; removing the links is what `systemctl disable` does.
  local links; mapfile -t links < <(comm -13 <(echo "$enabled_before") <(enabled))
  [ ${#links[@]} -eq 0 ] || { rm -f "${links[@]}"; echo "dependencies: disabled what the packages enabled: ${links[*]##*/}"; }
}
trap tidy EXIT

# One transaction that takes libvirt and QEMU from backports and all else, their libraries too, from bookworm; a plain
# `-t bookworm-backports` would move systemd and libcurl along. Nothing that is installed is removed for it.
{
  cat /etc/apt/preferences 2>/dev/null || true
  printf '\nPackage: src:libvirt src:qemu src:seabios\nPin: release n=bookworm-backports\nPin-Priority: 990\n'
} >"$pins"
apt-get install -q -y --no-install-recommends --no-remove -o Dir::Etc::Preferences="$pins" "${backports[@]}" "${main[@]}"
echo "dependencies: done"
