#!/bin/sh
# Makes the root directory of the test VM: Debian, its kernel, and what netlab's own set-up script installs (so the provisioner
# of the Vagrantfile is run here, too). Runs as root of mount and pid namespaces of its own: mounts and processes end with it.
#
#   tools/vm/build.sh ROOT SUITE KERNEL-PACKAGE [MIRROR]
set -eu
root=$1 suite=$2 kernel=$3 mirror=${4:-}
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
unset TMPDIR

include=$kernel,busybox-static,kmod,ca-certificates,python3,make,sudo,ipvsadm,iputils-ping
# shellcheck disable=SC2086  # no mirror: debootstrap's own
debootstrap --variant=minbase --include="$include" "$suite" "$root" $mirror

install -D -m 755 tools/setup.sh "$root/opt/setup/tools/setup.sh"
chroot "$root" /opt/setup/tools/setup.sh --machine
chroot "$root" useradd --create-home --shell /bin/bash tester
chroot "$root" apt-get clean
rm -rf "$root"/boot/initrd* "$root"/usr/share/doc/* "$root"/usr/share/locale/* "$root"/usr/share/man/* "$root"/var/lib/apt/lists/*
