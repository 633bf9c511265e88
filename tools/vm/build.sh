#!/bin/sh
# Makes the root directory of the test VM: Debian, its kernel, and netlab's requirements, installed by the Vagrantfile's own provisioner
# (tools/provision.sh) from the wheels in ROOT.wheels. Runs as root of mount and pid namespaces of its own: mounts and
# processes end with it.
#
#   tools/vm/build.sh ROOT SUITE KERNEL-PACKAGE [MIRROR]
set -eu
root=$1 suite=$2 kernel=$3 mirror=${4:-}
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
unset TMPDIR

include=$kernel,busybox-static,kmod,ca-certificates,python3,sudo,ipvsadm,iputils-ping
# shellcheck disable=SC2086  # no mirror: debootstrap's own
debootstrap --variant=minbase --include="$include" "$suite" "$root" $mirror

mv "$root.wheels" "$root/opt/wheels"
mkdir -p "$root/vagrant/tools" "$root/vagrant/netlab"
cp pyproject.toml README.md "$root/vagrant"
cp netlab/__init__.py "$root/vagrant/netlab"
cp tools/setup.sh tools/provision.sh "$root/vagrant/tools"
env -u PIP_CERT -u PIP_CONFIG_FILE PIP_NO_INDEX=1 PIP_FIND_LINKS=/opt/wheels NETLAB_MODULES=no \
    chroot "$root" /vagrant/tools/provision.sh
chroot "$root" useradd --create-home --shell /bin/bash tester
chroot "$root" apt-get clean
rm -rf "$root"/boot/initrd* "$root"/usr/share/doc/* "$root"/usr/share/locale/* "$root"/usr/share/man/* "$root"/var/lib/apt/lists/*
