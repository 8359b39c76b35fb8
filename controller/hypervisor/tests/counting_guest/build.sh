#!/bin/sh
# Builds counting_guest.bin, which is kept beside it: tests need no compiler of C.
set -eu
cd "$(dirname "$0")"
elf=$(mktemp)
trap 'rm -f "$elf"' EXIT
gcc -m32 -Os -ffreestanding -fno-pic -fno-stack-protector -fno-asynchronous-unwind-tables -nostdlib -no-pie -Wall -Wextra \
  -Wl,--build-id=none,-z,noexecstack -Wl,-Ttext=0x7e00 -Wl,--section-start=.boot=0x7c00 -Wl,-e,start \
  -o "$elf" counting_guest.S counting_guest.c
objcopy -O binary -j .boot -j .text -j .rodata -j .data "$elf" counting_guest.bin
chmod 644 counting_guest.bin
