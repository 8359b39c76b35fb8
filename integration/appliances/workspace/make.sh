# The workspace: Debian as debootstrap installs it, with what a person needs and only the start-up work that this
# machine needs. Sourced by build.sh.
workspace_uuid=6c0f2e5a-6761-4e77-8a79-000000000002
workspace_root_mib=2000

make_appliance() {
  local work=$1 cache=$2 file=$3 stage=$1/stage root=$1/root kernel
  step 1 6 "packages"
  kernel=$(kernel_package "$cache")
  fetch "$cache" "$kernel" busybox-static
  local tarball
  tarball=$(keep_debian "$work" "$cache")
  step 2 6 "Debian (debootstrap)"
  install_debian "$tarball" "$root" "$work"
  step 3 6 "kernel"
  mkdir -p "$stage"
  unpack "$cache" "$stage" "$kernel" busybox-static
  cp -r "$stage/lib/modules" "$root/lib/"
  chroot "$root" depmod "$(basename "$stage"/lib/modules/*)"
  step 4 6 "settings"
  configure_workspace "$root"
  clean_workspace "$root"
  step 5 6 "file systems"
  make_initrd "$work/initrd" "$stage" "$here/workspace/modules" "$workspace_uuid" rw,noatime,noinit_itable
  make_boot "$work/boot" "$stage"/boot/vmlinuz-* "$work/initrd"
  make_root "$work/rootfs" "$root" "$workspace_root_mib" "$workspace_uuid" -J size=16 -N 65536
  step 6 6 "disk"
  assemble "$file" "$work/boot" "$work/rootfs"
}

workspace_packages() { sed 's/#.*//; s/[[:space:]]*//g; /^$/d' "$here/workspace/packages" | paste -s -d ,; }

# The mirror of this machine's own apt: nothing about it is written into the image or into our files.
apt_mirror() {
  { grep -rhoE '^(URIs:|deb)\s.*' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null || true; } |
    grep -oE '(https?|file)://[^ ]*/debian/?( |$)' | head -n 1 | tr -d ' ' | grep . ||
    die "no Debian mirror in /etc/apt/sources.list*: add one"
}

# keep_debian WORK CACHE: path of a tarball with all packages; made once, named after the list of packages.
keep_debian() {
  local work=$1 cache=$2 list tarball mirror
  list=$(workspace_packages)
  tarball=$cache/workspace-$(sha256sum <<<"$list" | cut -c 1-16).tar
  if [ ! -e "$tarball" ]; then
    mirror=$(apt_mirror)
    say "workspace: downloading Debian packages into $cache (once)" >&2
    debootstrap --variant=minbase --include="$list" --make-tarball="$tarball.new" bookworm "$work/download" "$mirror" \
      >"$work/debootstrap.log" 2>&1 || die "debootstrap cannot download: $(tail -n 1 "$work/debootstrap.log")"
    mv "$tarball.new" "$tarball"
    rm -rf "$work/download"
  fi
  printf '%s\n' "$tarball"
}

install_debian() {
  local tarball=$1 root=$2 work=$3
  # Perl's hash order reaches some files of debconf; fixed, two builds agree.
  PERL_HASH_SEED=0 DEBIAN_FRONTEND=noninteractive debootstrap --variant=minbase --include="$(workspace_packages)" \
    --unpack-tarball="$tarball" bookworm "$root" >"$work/debootstrap.log" 2>&1 ||
    {
      tail -n 15 "$root/debootstrap/debootstrap.log" >&2
      die "debootstrap failed (its last lines are above); if $tarball is damaged, remove it and try again"
    }
  umount "$root/proc" "$root/sys" 2>/dev/null || true
}

configure_workspace() {
  local root=$1 unit
  cp -r --no-preserve=ownership "$here/workspace/root/." "$root/"
  chmod 755 "$root"/usr/lib/collective/*
  echo workspace >"$root/etc/hostname"
  printf '127.0.0.1 localhost workspace\n' >"$root/etc/hosts"
  : >"$root/etc/fstab"
  ln -sf /run/systemd/resolve/resolv.conf "$root/etc/resolv.conf"
  ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
  chroot "$root" passwd --delete root >/dev/null
  while read -r unit; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
  done < <(sed 's/#.*//; s/[[:space:]]*//g; /^$/d' "$here/workspace/masked")
  chroot "$root" systemctl --quiet enable systemd-networkd.service systemd-resolved.service serial-getty@ttyS0.service \
    collective-instance.service collective-counter.service collective-http.service collective-health.service
  rm -rf "$root/etc/systemd/system/network-online.target.wants"
}

# What differs between two builds, belongs to one machine, or only fills the disk.
clean_workspace() {
  local root=$1
  chroot "$root" apt-get clean
  rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/{apt,ldconfig,man,debconf}/* "$root"/var/log/* "$root"/tmp/* "$root"/var/tmp/*
  rm -rf "$root"/var/lib/dpkg/*-old "$root"/etc/{passwd,group,shadow,gshadow,subuid,subgid}- "$root"/var/lib/systemd/random-seed
  rm -f "$root"/etc/.pwd.lock "$root"/dev/* "$root"/run/* "$root"/etc/ssh/ssh_host_* 2>/dev/null || true
  rm -rf "$root"/dev/* "$root"/run/*
  # Empty, not absent: a new identity at each start, without the long work of a first boot.
  : >"$root/etc/machine-id"
  ln -sf /etc/machine-id "$root/var/lib/dbus/machine-id"
  printf '# This image was made without a source of packages: name your mirror here.\n' >"$root/etc/apt/sources.list"
  # As new as anything in /usr, so that no unit believes an update has happened.
  touch --date "@$SOURCE_DATE_EPOCH" "$root/usr" "$root/etc/.updated" "$root/var/.updated"
}
