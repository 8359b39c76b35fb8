#!/usr/bin/env bash
# Proves the two appliances on this machine: boots them under QEMU without KVM, joined by a socket, and looks at them as
# a member, as a stranger outside, and through their consoles. Prints boot seconds and bytes read.
#
# usage: check.sh [--dir DIR] [--keep]
#   --dir DIR  where NAME/system.raw are; default: where build.sh puts them
#   --keep     leave consoles and config disks behind and say where
#
# The disks are opened read-only behind temporary overlays. Everything started here ends with this script.
set -euo pipefail
export LC_ALL=C
dir=${XDG_CACHE_HOME:-$HOME/.cache}/collective/appliances keep=
while [ $# -gt 0 ]; do
  case $1 in
  --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
  --keep) keep=1; shift ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2 ;;
  esac
done

# Generous: other work may share the machine. What is expected of an idle one is printed beside what was measured.
boot_deadline=180
work=$(mktemp -d "${TMPDIR:-/tmp}/collective-check.XXXXXX")
pids=()
failures=0

finish() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  if [ -n "$keep" ]; then echo "check: consoles and disks are in $work"; else rm -rf "$work"; fi
}
trap finish EXIT

say() { printf 'check: %s\n' "$*"; }
die() { printf 'check: %s\n' "$*" >&2; exit 1; }
# claim WHAT COMMAND...: runs it, prints how it went, remembers a failure.
claim() {
  local what=$1
  shift
  if "$@"; then say "ok    $what"; else say "FAIL  $what"; failures=$((failures + 1)); fi
}
fails() { ! "$@"; }
now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

# A descriptor on which nothing arrives: pause without a process.
mkfifo "$work/never"
exec {never}<>"$work/never"
pause() { read -r -t "$1" -u "$never" || true; }

# until_true SECONDS COMMAND...
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    pause 0.05
  done
}

# config_disk NAME < instance.env
config_disk() {
  local disk=$work/$1.cidata
  cat >"$work/$1.env"
  truncate -s 2M "$disk"
  mkfs.vfat -n CIDATA "$disk" >/dev/null
  mcopy -i "$disk" "$work/$1.env" ::/instance.env
}

# start NAME MEMORY ARGUMENT...: boots one guest; its monitor and console are pairs of FIFOs, its health a file.
start() {
  local guest=$1 memory=$2
  shift 2
  mkfifo "$work/$guest".{monitor,console}.{in,out}
  : >"$work/$guest.health"
  cat "$work/$guest.monitor.out" >"$work/$guest.monitor" & pids+=($!)
  cat "$work/$guest.console.out" >"$work/$guest.console" & pids+=($!)
  eval "${guest//-/_}_began=$(now_ms)"
  qemu-system-x86_64 -name "$guest" -machine q35 -accel tcg -cpu max -m "$memory" -display none -nodefaults -no-user-config \
    -chardev "pipe,id=monitor,path=$work/$guest.monitor" -mon chardev=monitor,mode=readline \
    -chardev "pipe,id=console,path=$work/$guest.console" -serial chardev:console \
    -chardev "file,id=health,path=$work/$guest.health" -device virtio-serial-pci \
    -device virtserialport,chardev=health,name=org.collective.health.0 \
    -drive "if=none,id=system,file=$work/$guest.qcow2,format=qcow2,cache=unsafe" -device virtio-blk-pci,drive=system,bootindex=0 \
    -device virtio-rng-pci "$@" >"$work/$guest.qemu" 2>&1 &
  pids+=($!)
  eval "${guest//-/_}_pid=$!"
}

overlay() { qemu-img create -q -f qcow2 -b "$dir/$2/system.raw" -F raw "$work/$1.qcow2"; }

# monitor GUEST COMMAND: what QEMU answers.
monitor() {
  local mark
  mark=$(stat -c %s "$work/$1.monitor")
  printf '%s\n' "$2" >"$work/$1.monitor.in"
  pause 0.3
  tail -c "+$((mark + 1))" "$work/$1.monitor" | tr -d '\r'
}

# console GUEST COMMAND: what the guest's shell prints for it, through the serial console.
console() {
  local mark=$BASHPID$RANDOM
  until_true 60 grep -q '# ' "$work/$1.console" || { echo "check: the console of $1 has no prompt" >&2; return 1; }
  # The quotes keep the echo of what is typed from looking like the answer.
  printf '\necho "beg""in"%s; %s; echo "en""d"%s\n' "$mark" "$2" "$mark" >"$work/$1.console.in"
  until_true 60 console_holds "$1" "end$mark" || { echo "check: the console of $1 does not answer" >&2; return 1; }
  plain_console "$1" | sed -n "/^begin$mark/,/^end$mark/p" | sed '1d;$d'
}
plain_console() { sed 's/\x1b\[[0-9;?]*[a-zA-Z]//g; s/\r//g' "$work/$1.console"; }
console_holds() { plain_console "$1" | grep -q "^$2"; }
console_has() { console "$1" "$2" | grep -qE "$3"; }
console_lacks() {
  local answer
  answer=$(console "$1" "$2") || return 1
  ! grep -qE "$3" <<<"$answer"
}

is_ready() { grep -qx ready "$work/$1.health"; }

# wait_ready GUEST EXPECTED_SECONDS
wait_ready() {
  local began=${1//-/_}_began ms
  until_true "$boot_deadline" is_ready "$1" || { tail -n 30 "$work/$1.console" "$work/$1.qemu" >&2; die "$1 is not ready after $boot_deadline s"; }
  ms=$(($(now_ms) - ${!began}))
  say "      $1 ready after $((ms / 1000)).$(printf %03d $((ms % 1000))) s (expected of an idle machine: $2 s)"
}

# report_reads GUEST APPLIANCE: bytes of the image read so far, and how much of its content that is.
report_reads() {
  local guest=$1 read content
  read=$(monitor "$guest" "info blockstats" | sed -n 's/^system: rd_bytes=\([0-9]*\).*/\1/p')
  [ -n "$read" ] || die "QEMU does not say what $guest read"
  content=$(($(stat -c %b "$dir/$2/system.raw") * 512))
  say "      $guest read $((read / 1048576)) MiB of $((content / 1048576)) MiB content: $((read * 100 / content)) %"
  eval "${guest//-/_}_read_percent=$((read * 100 / content))"
}

# forwarded_port ADDRESS PORT: where on this machine QEMU listens for it.
forwarded_port() {
  monitor gateway "info usernet" |
    awk -v address="$1" -v port="$2" '/HOST_FORWARD/ && $5 == address && $6 == port { print $4; exit }'
}
get() { curl --silent --fail --max-time "${2:-10}" "http://127.0.0.1:$1"; }
get_matches() { get "$1" | grep -qE "$2"; }

gateway_env() {
  cat <<ENV
INSTANCE="office/gateway"
DEPLOYMENT="office"
MEMBER="gateway"
INCARNATION="5f1c3c44-0000-4000-8000-000000000001"
PORTS="wan lan"
PORT_wan_MAC="02:c0:11:00:00:01"
PORT_wan_ADDRESS="10.0.2.15/24"
PORT_wan_ROUTER="10.0.2.2"
PORT_wan_MTU="1500"
PORT_lan_MAC="02:c0:11:00:00:02"
PORT_lan_ADDRESS="10.20.0.1/24"
PORT_lan_ROUTER=""
PORT_lan_MTU="1450"
GATEWAY_FROM="lan"
GATEWAY_TO="wan"
LEASES="02:c0:11:00:00:03=10.20.0.10=workspace"
FORWARDS="tcp:80:10.20.0.10:80"
OUTBOUND="10.20.0.10=tcp:$outbound_port"
ENV
}

workspace_env() {
  cat <<ENV
INSTANCE="office/workspace"
DEPLOYMENT="office"
MEMBER="workspace"
INCARNATION="5f1c3c44-0000-4000-8000-000000000002"
PORTS="eth0"
PORT_eth0_MAC="02:c0:11:00:00:03"
PORT_eth0_ADDRESS="10.20.0.10/24"
PORT_eth0_ROUTER="10.20.0.1"
PORT_eth0_MTU="1450"
ENV
}

start_gateway() {
  gateway_env | config_disk gateway
  overlay gateway gateway
  start gateway 192M \
    -netdev "user,id=wan,net=10.0.2.0/24,hostfwd=tcp:127.0.0.1:0-10.0.2.15:80,hostfwd=tcp:127.0.0.1:0-10.0.2.15:53,hostfwd=tcp:127.0.0.1:0-10.20.0.10:80" \
    -device virtio-net-pci,netdev=wan,mac=02:c0:11:00:00:01,romfile= \
    -netdev "stream,id=lan,server=on,addr.type=unix,addr.path=$work/lan.sock" \
    -device virtio-net-pci,netdev=lan,mac=02:c0:11:00:00:02,romfile= \
    -drive "if=none,id=config,file=$work/gateway.cidata,format=raw,read-only=on" -device virtio-blk-pci,drive=config
}

start_workspace() {
  workspace_env | config_disk workspace
  overlay workspace workspace
  start workspace 384M \
    -netdev "stream,id=lan,server=off,addr.type=unix,addr.path=$work/lan.sock" \
    -device virtio-net-pci,netdev=lan,mac=02:c0:11:00:00:03,romfile= \
    -drive "if=none,id=config,file=$work/workspace.cidata,format=raw,read-only=on" -device virtio-blk-pci,drive=config \
    -drive "if=none,id=home,file=$work/home.qcow2,format=qcow2,cache=unsafe" -device virtio-blk-pci,drive=home,serial=vol-home
}

# A server of our own behind the wan: what the workspace may reach outside, and nothing else there.
start_outside() {
  python3 - "$work/outside.ports" <<'PY' &
import http.server, sys, threading
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"outside\n")
    def log_message(self, *_): pass
servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) for _ in range(2)]
with open(sys.argv[1] + ".new", "w") as file: file.write(" ".join(str(s.server_port) for s in servers) + "\n")
import os; os.rename(sys.argv[1] + ".new", sys.argv[1])
threading.Thread(target=servers[0].serve_forever, daemon=True).start()
servers[1].serve_forever()
PY
  pids+=($!)
  until_true 20 test -s "$work/outside.ports" || die "no server outside"
  read -r outbound_port forbidden_port <"$work/outside.ports"
}

counter_grows() {
  local first second
  first=$(get "$web/counter") && pause 1 && second=$(get "$web/counter") || return 1
  say "      counter: $first, a second later $second"
  [ "$second" -gt "$first" ] && [ "$second" -le $((first + 20)) ]
}

check_path() {
  web=$(forwarded_port 10.0.2.15 80)
  closed=$(forwarded_port 10.0.2.15 53) inner=$(forwarded_port 10.20.0.10 80)
  [ -n "$web" ] && [ -n "$closed" ] && [ -n "$inner" ] || die "QEMU names no forwarded ports"
  claim "the workspace got its address and MTU by DHCP" console_has workspace "ip -4 addr show eth0; ip link show eth0" 'inet 10.20.0.10/24'
  claim "with the MTU of its network" console_has workspace "ip link show eth0" 'mtu 1450'
  claim "a stranger outside reaches HTTP through the forward" until_true 20 get_matches "$web/instance" .
  claim "the page names instance and incarnation" get_matches "$web/instance" '^office/workspace 5f1c3c44-0000-4000-8000-000000000002$'
  claim "the front page names them too" get_matches "$web/" '<h1>office/workspace</h1>'
  claim "the boot id is the kernel's" get_matches "$web/boot-id" '^[0-9a-f-]{36}$'
  claim "the volume has an identity" get_matches "$web/volume" '^[0-9a-f-]{36}$'
  claim "the overlay has another" get_matches "$web/overlay" '^[0-9a-f-]{36}$'
  claim "the counter grows" counter_grows
  claim "a port that is not forwarded does not answer outside" fails get "$closed/" 4
  claim "an inside address is not reachable from outside" fails get "$inner/" 4
  claim "DNS inside knows the names" console_has workspace "getent hosts gateway workspace" '^10.20.0.1 '
  claim "the gateway answers ping inside" console_has workspace "ping -c 1 -W 3 10.20.0.1" ' 0% packet loss'
  claim "what OUTBOUND allows passes" console_has workspace "curl -s --max-time 10 http://10.0.2.2:$outbound_port/" '^outside'
  claim "what it does not allow stays inside" console_lacks workspace "curl -s --max-time 4 http://10.0.2.2:$forbidden_port/" '^outside'
  claim "the volume is mounted on /home" console_has workspace "findmnt -n -o SOURCE,FSTYPE /home" '^/dev/vd. +ext4'
  claim "the volume's link by serial exists" console_has workspace "ls /dev/disk/by-id" '^virtio-vol-home$'
  claim "no unit of the workspace failed" console_has workspace "systemctl list-units --failed --plain --no-legend | wc -l" '^0$'
}

# A second life on a new overlay with the same volume: what is kept and what is not.
check_volume_is_kept() {
  local volume overlay_before
  volume=$(get "$web/volume") overlay_before=$(get "$web/overlay")
  console workspace "sync" >/dev/null
  kill -9 "$workspace_pid"
  wait "$workspace_pid" 2>/dev/null || true
  rm -f "$work"/workspace.{monitor,console}.{in,out} "$work/workspace.qcow2"
  start_workspace
  wait_ready workspace 25
  claim "after a kill the workspace is reached again" until_true 40 get_matches "$web/instance" .
  claim "the volume is the same one" test "$(get "$web/volume")" = "$volume"
  claim "the overlay is a new one" test "$(get "$web/overlay")" != "$overlay_before"
}

power_button() {
  local pid=${1//-/_}_pid
  monitor "$1" system_powerdown >/dev/null
  until_true 60 fails kill -0 "${!pid}" 2>/dev/null
}

# A gateway that is not told what to pass passes nothing, whatever the reason.
check_closed() {
  overlay unconfigured gateway
  start unconfigured 192M
  broken_env | config_disk broken
  overlay broken gateway
  start broken 192M -netdev user,id=wan -device virtio-net-pci,netdev=wan,mac=02:c0:11:00:00:01,romfile= \
    -netdev user,id=lan,net=10.20.0.0/24 -device virtio-net-pci,netdev=lan,mac=02:c0:11:00:00:02,romfile= \
    -drive "if=none,id=config,file=$work/broken.cidata,format=raw,read-only=on" -device virtio-blk-pci,drive=config
  claim "without a config disk the gateway says it is closed" until_true "$boot_deadline" grep -q 'CLOSED: no config disk' "$work/unconfigured.console"
  claim "with a rule that does not load it says so" until_true "$boot_deadline" grep -q 'CLOSED: the rules do not load' "$work/broken.console"
  for guest in unconfigured broken; do
    claim "$guest: nothing is forwarded" console_has "$guest" "cat /proc/sys/net/ipv4/ip_forward" '^0$'
    claim "$guest: it never says ready" fails is_ready "$guest"
  done
  claim "broken: no port is up" console_lacks broken "ip link show up" ': (wan|lan):'
}
broken_env() { gateway_env | sed 's/^FORWARDS=.*/FORWARDS="tcp:80:10.20.0.999:80"/'; }

main() {
  local name
  for name in gateway workspace; do
    [ -s "$dir/$name/system.raw" ] || die "no $dir/$name/system.raw: run $(dirname "$0")/build.sh"
  done
  qemu-img create -q -f qcow2 "$work/home.qcow2" 10G
  start_outside
  start_gateway
  wait_ready gateway 8
  report_reads gateway gateway
  start_workspace
  wait_ready workspace 25
  report_reads workspace workspace
  claim "the workspace read less than a fifth of its content" test "$workspace_read_percent" -lt 20
  check_path
  check_volume_is_kept
  check_closed
  claim "the power button ends the workspace" power_button workspace
  claim "the power button ends the gateway" power_button gateway
  [ "$failures" = 0 ] || die "$failures claims failed"
  say "all claims hold"
}
main
