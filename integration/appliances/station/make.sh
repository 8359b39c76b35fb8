# A station: Debian's cloud kernel and busybox on a root that is only ever read. Sourced by build.sh.
station_uuid=6c0f2e5a-6761-4e77-8a79-000000000004
station_root_mib=8

make_appliance() {
  local work=$1 cache=$2 file=$3 stage=$1/stage root=$1/root packages kernel
  mapfile -t packages <"$here/station/packages"
  step 1 4 "packages"
  kernel=$(kernel_package "$cache")
  fetch "$cache" "$kernel" "${packages[@]}"
  mkdir -p "$stage"
  unpack "$cache" "$stage" "$kernel" "${packages[@]}"
  step 2 4 "root"
  make_station_tree "$stage" "$root"
  step 3 4 "file systems"
  make_initrd "$work/initrd" "$stage" "$here/station/modules" "$station_uuid" ro,noatime
  make_boot "$work/boot" "$stage"/boot/vmlinuz-* "$work/initrd"
  make_root "$work/rootfs" "$root" "$station_root_mib" "$station_uuid" -O ^has_journal,^resize_inode -N 1024
  step 4 4 "disk"
  assemble "$file" "$work/boot" "$work/rootfs"
}

make_station_tree() {
  local stage=$1 root=$2 applet
  mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,root,etc,tmp,srv}
  cp "$stage/bin/busybox" "$root/bin/busybox"
  for applet in $("$stage/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s /bin/busybox "$root/bin/$applet"
  done
  ln -s /bin/busybox "$root/sbin/init"
  cp -r "$here/station/root/." "$root/"
  ln -s /run/resolv.conf "$root/etc/resolv.conf"
  printf 'root::0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\n' >"$root/etc/group"
  chown -hR 0:0 "$root"
  chmod -R u=rwX,go=rX "$root"
}
