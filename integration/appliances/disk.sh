# Turns a folder of files into a bootable disk, without a loop device: mtools for the boot partition, mke2fs -d for the
# root, sfdisk for the table. Sourced by build.sh. Sizes are MiB. Free space is zero, so the raw file stays sparse.
syslinux_mbr=/usr/lib/syslinux/mbr/mbr.bin
[ -e "$syslinux_mbr" ] || syslinux_mbr=/usr/lib/SYSLINUX/mbr.bin
boot_mib=20
boot_start_mib=1

# Debian's kernel under emulation: what makes it start in half the time, and nothing else.
kernel_command_line="console=ttyS0 quiet mitigations=off no_timer_check tsc=reliable i8042.noaux 8250.nr_uarts=1 rcupdate.rcu_expedited=1 net.ifnames=0"

# make_initrd FILE STAGE MODULES ROOT_UUID ROOT_OPTIONS: STAGE holds the unpacked kernel and busybox, MODULES is a file
# with one module per line. The modules travel here whole: one sequential read at boot.
make_initrd() {
  local file=$1 stage=$2 modules=$3 tree
  tree=$(mktemp -d "$stage/initrd.XXXXXX")
  mkdir -p "$tree"/{bin,dev,proc,sys,root,modules,etc}
  cp "$stage/bin/busybox" "$tree/bin/busybox"
  install -m 755 "$here/initrd/init" "$tree/init"
  printf 'root_uuid=%s\nroot_options=%s\n' "$4" "$5" >"$tree/etc/root"
  collect_modules "$stage" "$modules" "$tree/modules"
  clamp_times "$tree"
  (cd "$tree" && find . -print0 | sort -z | cpio --null --create --format=newc --reproducible --owner=0:0 --quiet) |
    gzip -9 -n >"$file"
  rm -rf "$tree"
}

# collect_modules STAGE LIST INTO: copies each module after those it needs and writes INTO/order.
collect_modules() {
  local stage=$1 list=$2 into=$3 path module
  declare -A module_path=() module_done=()
  while read -r path; do
    module=$(basename "$path" .ko)
    module_path[${module//-/_}]=$path
  done < <(find "$stage/lib/modules" -name '*.ko')
  : >"$into/order"
  while read -r module; do add_module "$into" "$module"; done < <(sed 's/#.*//; s/[[:space:]]*//g; /^$/d' "$list")
}

add_module() {
  local into=$1 module=${2//-/_} path needs need
  [ -z "${module_done[$module]:-}" ] || return 0
  path=${module_path[$module]:-}
  [ -n "$path" ] || die "the kernel package has no module $module: correct the list of modules"
  needs=$(tr '\0' '\n' <"$path" | sed -n 's/^depends=//p')
  for need in ${needs//,/ }; do add_module "$into" "$need"; done
  cp "$path" "$into/$module.ko"
  echo "$module" >>"$into/order"
  module_done[$module]=1
}

clamp_times() { find "$1" -depth -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +; }

# make_boot FILE KERNEL INITRD
make_boot() {
  local file=$1
  truncate -s "${boot_mib}M" "$file"
  mkfs.vfat -F 16 -n BOOT -i 436f6c6c --invariant "$file" >/dev/null
  cat >"$file.cfg" <<CFG
DEFAULT linux
PROMPT 0
TIMEOUT 0
LABEL linux
  LINUX /vmlinuz
  INITRD /initrd
  APPEND $kernel_command_line
CFG
  cp "$2" "$file.kernel"
  touch --date "@$SOURCE_DATE_EPOCH" "$file.cfg" "$file.kernel" "$3"
  syslinux --install "$file"
  mcopy -m -i "$file" "$file.kernel" ::/vmlinuz
  mcopy -m -i "$file" "$3" ::/initrd
  mcopy -m -i "$file" "$file.cfg" ::/syslinux.cfg
  rm -f "$file.cfg" "$file.kernel"
}

# make_root FILE TREE MIB UUID MKE2FS_OPTIONS...: an ext4 whose bytes depend on the tree alone. TREE is consumed.
make_root() {
  local file=$1 tree=$2 mib=$3 uuid=$4 sorted
  shift 4
  clamp_times "$tree"
  # mke2fs takes inodes in the order the folder lists them, so the tree is rewritten in a fixed order first.
  sorted=$(mktemp -d "$tree.sorted.XXXXXX")
  tar --sort=name --numeric-owner --xattrs --xattrs-include='*' -C "$tree" -cf - . |
    tar --numeric-owner --xattrs --xattrs-include='*' -C "$sorted" -xpf -
  rm -rf "$tree"
  truncate -s "${mib}M" "$file"
  E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH mke2fs -q -t ext4 -d "$sorted" -U "$uuid" -m 0 \
    -E "hash_seed=$uuid,lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0" "$@" "$file"
  rm -rf "$sorted"
  fix_inode_times "$file"
  E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH e2fsck -fn "$file" >/dev/null 2>&1 || die "the new file system $file is not clean"
}

# The change and access times mke2fs -d copies are those of the build; nothing but debugfs can set them.
fix_inode_times() {
  local file=$1
  dumpe2fs "$file" 2>/dev/null | awk -v when="@$SOURCE_DATE_EPOCH" '
    /^Inode count:/ { count = $3 }
    /^  Free inodes: / { sub(/^  Free inodes: /, ""); n = split($0, ranges, ", ")
      for (i = 1; i <= n; i++) { m = split(ranges[i], ends, "-"); free[ends[1]] = m > 1 ? ends[2] : ends[1] } }
    END { for (i = 1; i <= count; i++) {
      if (i in free) { i = free[i]; continue }
      if (i != 2 && i < 11) continue
      printf "sif <%d> ctime %s\nsif <%d> atime %s\nsif <%d> crtime %s\n", i, when, i, when, i, when
      printf "sif <%d> ctime_extra 0\nsif <%d> atime_extra 0\nsif <%d> crtime_extra 0\n", i, i, i } }' >"$file.times"
  E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH debugfs -w -f "$file.times" "$file" >/dev/null 2>"$file.log" ||
    die "debugfs failed: $(tail -n 1 "$file.log")"
  rm -f "$file.times" "$file.log"
}

# assemble FILE BOOT ROOT: master boot record, boot partition, root partition.
assemble() {
  local file=$1 boot=$2 root=$3 root_start_mib=$((boot_start_mib + boot_mib))
  rm -f "$file"
  truncate -s "$(($(stat -c %s "$root") + root_start_mib * 1048576))" "$file"
  printf 'label: dos\nlabel-id: 0x436f6c6c\nstart=%dMiB, size=%dMiB, type=c, bootable\nstart=%dMiB, type=83\n' \
    "$boot_start_mib" "$boot_mib" "$root_start_mib" | sfdisk --quiet --no-reread --no-tell-kernel "$file"
  dd if="$syslinux_mbr" of="$file" bs=440 count=1 conv=notrunc status=none
  dd if="$boot" of="$file" bs=1M seek="$boot_start_mib" conv=notrunc,sparse status=none
  dd if="$root" of="$file" bs=64K seek="$((root_start_mib * 16))" conv=notrunc,sparse status=none
}
