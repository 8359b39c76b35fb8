# The gateway: Debian's cloud kernel, busybox, nft and dnsmasq on a root that is only ever read. Sourced by build.sh.
gateway_uuid=6c0f2e5a-6761-4e77-8a79-000000000001
gateway_root_mib=32

make_appliance() {
  local work=$1 cache=$2 file=$3 stage=$1/stage root=$1/root packages kernel
  mapfile -t packages <"$here/gateway/packages"
  step 1 4 "packages"
  kernel=$(kernel_package "$cache")
  fetch "$cache" "$kernel" "${packages[@]}"
  mkdir -p "$stage"
  unpack "$cache" "$stage" "$kernel" "${packages[@]}"
  step 2 4 "root"
  make_gateway_tree "$stage" "$root"
  step 3 4 "file systems"
  make_initrd "$work/initrd" "$stage" "$here/gateway/modules" "$gateway_uuid" ro,noatime
  make_boot "$work/boot" "$stage"/boot/vmlinuz-* "$work/initrd"
  make_root "$work/rootfs" "$root" "$gateway_root_mib" "$gateway_uuid" -O ^has_journal,^resize_inode -N 1024
  step 4 4 "disk"
  assemble "$file" "$work/boot" "$work/rootfs"
}

make_gateway_tree() {
  local stage=$1 root=$2 applet program
  mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,root,etc,tmp,usr/bin,usr/sbin,var}
  ln -s /run "$root/var/run"
  cp "$stage/bin/busybox" "$root/bin/busybox"
  for applet in $("$stage/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s /bin/busybox "$root/bin/$applet"
  done
  ln -s /bin/busybox "$root/sbin/init"
  for program in /usr/sbin/nft /usr/sbin/dnsmasq; do copy_program "$stage" "$root" "$program"; done
  cp -r "$here/gateway/root/." "$root/"
  printf 'root::0:0:root:/root:/bin/sh\ndnsmasq:x:100:100::/run:/bin/false\n' >"$root/etc/passwd"
  printf 'root:x:0:\ndnsmasq:x:100:\n' >"$root/etc/group"
  chown -R 0:0 "$root"
  chmod -R u=rwX,go=rX "$root"
}

# copy_program STAGE ROOT PATH: the program and the libraries its loader finds inside STAGE, never this machine's.
copy_program() {
  local stage=$1 root=$2 program=$3 path listed
  listed=$(chroot "$stage" /lib64/ld-linux-x86-64.so.2 --list "$program") ||
    die "a library of $program is missing: add its package to gateway/packages"
  install -D -m 755 "$stage$program" "$root$program"
  while read -r path; do
    install -D -m 755 "$(realpath "$stage$path")" "$root$path"
  done < <(grep -oE '/[^ ]+' <<<"$listed")
}
