#!/bin/bash
# rootfs.sh FOLDER: fills FOLDER with the root file systems that the test
# images are made of, as tars and compressed tars, for linux/amd64 and
# linux/arm64:
#
#   busybox-ARCH.tar .tar.gz .tar.zst   a busybox-static package and its applets
#   debian-ARCH.tar .tar.gz             a minimal Debian
#
# They are real, so that containers made of them run; they come from the Debian
# archive, so that no registry is needed. What is there already is kept: a first
# run takes about a minute, the next ones nothing. Needs root (chroot, mknod).
set -euo pipefail

mkdir -p "$1"
cd "$1"
suite=bookworm
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
host=$(dpkg --print-architecture)
archive=$(apt-get indextargets --format '$(SITE)' | grep -v security | sort -u | head -n 1)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# pack FOLDER TAR [COMMAND SUFFIX]...: the same tree gives the same bytes. A
# file gets its name last, so that an interrupted run leaves nothing half done.
pack() {
  local tree=$1 tar=$2
  shift 2
  tar --sort=name --mtime=@1700000000 --numeric-owner --format=gnu -C "$tree" -cf "$work/tar" .
  while [ $# -gt 0 ]; do
    $1 <"$work/tar" >"$work/compressed"
    mv "$work/compressed" "$tar.$2"
    shift 2
  done
  mv "$work/tar" "$tar"
}

# busybox_package ARCH: prints the path of the .deb. The package lists and the
# state are our own, so the machine's apt learns nothing of a foreign
# architecture; signatures are checked as usual.
busybox_package() {
  local arch=$1 state=$work/apt-$1
  mkdir -p "$state"/{lists/partial,cache/archives/partial,sources,download}
  : >"$state/status"
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
    "$archive" "$suite" "$keyring" >"$state/sources/debian.sources"
  local options=(
    -o APT::Architecture="$arch" -o APT::Architectures::="$arch" -o APT::Sandbox::User=root
    -o Dir::State="$state" -o Dir::State::status="$state/status" -o Dir::State::lists="$state/lists"
    -o Dir::Cache="$state/cache" -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$state/sources"
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)
  apt-get "${options[@]}" update -qq >/dev/null
  (cd "$state/download" && apt-get "${options[@]}" download -qq busybox-static >/dev/null)
  echo "$state"/download/busybox-static_*.deb
}

# busybox ARCH APPLETS: the applet names are given, because a foreign binary
# cannot be asked for them.
busybox() {
  local arch=$1 applets=$2 tree=$work/busybox-$1 name
  mkdir -p "$tree"/{bin,etc,tmp,root,proc,sys,dev,var,home,usr/bin}
  chmod 1777 "$tree/tmp"
  cp "$work/bin-$arch" "$tree/bin/busybox"
  for name in $applets; do
    [ "$name" = busybox ] || ln -s busybox "$tree/bin/$name"
  done
  ln -s ../../bin/busybox "$tree/usr/bin/env"
  echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
  echo 'root:x:0:' >"$tree/etc/group"
  : >"$tree/etc/resolv.conf"
  pack "$tree" "busybox-$arch.tar" 'gzip -n -6' gz 'zstd -q -10' zst
}

# debian ARCH: of a foreign architecture only the first stage, which unpacks the
# packages; that is all a mirror needs.
debian() {
  local arch=$1 tree=$work/debian-$1 foreign=()
  [ "$arch" = "$host" ] || foreign=(--foreign)
  debootstrap --variant=minbase --arch="$arch" --keyring="$keyring" "${foreign[@]}" \
    "$suite" "$tree" "$archive" >"$work/debootstrap.log" 2>&1 || {
    tail -n 20 "$work/debootstrap.log" >&2
    exit 1
  }
  # What is the machine's or the hour's: device files, caches, logs.
  rm -rf "$tree"/dev/* "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/* \
    "$tree"/var/log/*.log "$tree"/var/log/apt "$tree"/var/cache/ldconfig/aux-cache "$tree"/debootstrap/debootstrap.log
  pack "$tree" "debian-$arch.tar" 'gzip -n -6' gz
  rm -rf "$tree"
}

if [ ! -f busybox-amd64.tar ] || [ ! -f busybox-arm64.tar ]; then
  for arch in amd64 arm64; do
    deb=$(busybox_package $arch)
    dpkg-deb --fsys-tarfile "$deb" | tar -xO --wildcards './*bin/busybox' >"$work/bin-$arch"
    chmod 755 "$work/bin-$arch"
  done
  applets=$(exec -a busybox "$work/bin-$host" --list)
  for arch in amd64 arm64; do busybox $arch "$applets"; done
fi
for arch in amd64 arm64; do
  [ -f "debian-$arch.tar" ] || debian $arch
done
