#!/bin/sh
# `make vagrant-up`: a real `vagrant up` with libvirt, from a box built here, and scenarios in the machine that comes up. As root, on
# Debian; it takes ten to thirty minutes, most of it for the two systems that are made first and kept in the cache.
#
# Nothing is installed on this machine, and its network is not touched: libvirt, its bridge and vagrant run in a Debian of their own
# (a chroot), in mount, pid and network namespaces of their own, and end with them. The virtual machine has therefore no way to the
# outside: what the provisioner installs is in the box.
set -eu
cd "$(dirname "$0")/../.."
cache=${NETLAB_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/netlab-vm}/vagrant
PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C

[ "$(id -u)" = 0 ] || { echo "vagrant-up: needs root (debootstrap, libvirt): sudo make vagrant-up" >&2; exit 3; }
for program in debootstrap mke2fs unshare; do
    command -v "$program" >/dev/null || { echo "vagrant-up: $program is missing: apt-get install debootstrap e2fsprogs util-linux" >&2; exit 3; }
done
mirror=${NETLAB_VM_MIRROR:-$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(CODENAME) $(COMPONENT)' 2>/dev/null |
    sed -n 's/ Debian bookworm main$//p' | head -n 1)}
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9

# In namespaces of its own, so that mounts and processes end with it.
apart() { unshare --mount --pid --fork --kill-child=KILL --mount-proc "$@"; }

bootstrap() { # DIRECTORY PACKAGES
    rm -rf "$1.new"
    # shellcheck disable=SC2086  # no mirror: debootstrap's own
    apart debootstrap --variant=minbase --include="$2" bookworm "$1.new" $mirror >"$1.log" 2>&1 ||
        { tail -n 15 "$1.log" >&2; exit 3; }
    chroot "$1.new" apt-get clean
}

host=$cache/host
if [ ! -e "$host" ]; then
    echo "vagrant-up: making a system with vagrant and libvirt ($host)" >&2
    bootstrap "$host" "vagrant,vagrant-libvirt,libvirt-daemon,libvirt-daemon-driver-qemu,libvirt-clients,dnsmasq-base,qemu-system-x86,qemu-utils,iptables,iproute2,openssh-client,rsync,kmod,ca-certificates,procps"
    mv "$host.new" "$host"
fi

wheels=$(python3 -c 'import tomllib; d = tomllib.load(open("pyproject.toml", "rb")); p = d["project"]
print("\n".join([*p["dependencies"], *p["optional-dependencies"]["dev"], *d["build-system"]["requires"], "wheel"]))')
box=$cache/box-$(cat pyproject.toml tools/setup.sh tools/provision.sh "$0" | sha256sum | cut -c1-16)
if [ ! -e "$box" ]; then
    echo "vagrant-up: making the box ($box)" >&2
    bootstrap "$box" "linux-image-cloud-amd64,systemd-sysv,dbus,openssh-server,sudo,rsync,python3,ca-certificates,kmod"
    root=$box.new
    printf '%s\n' "$wheels" >"$box.requirements"
    "${PYTHON:-python3}" -m pip download --disable-pip-version-check --quiet --dest "$root/opt/wheels" --python-version 3.11 --only-binary :all: \
        --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 --requirement "$box.requirements"
    mkdir -p "$root/vagrant/tools" "$root/vagrant/netlab"
    cp pyproject.toml README.md "$root/vagrant"
    cp netlab/__init__.py "$root/vagrant/netlab"
    cp tools/setup.sh tools/provision.sh "$root/vagrant/tools"
    printf '[global]\nno-index = true\nfind-links = /opt/wheels\n' >"$root/etc/pip.conf"
    env -u PIP_CERT -u PIP_CONFIG_FILE NETLAB_MODULES=no unshare --mount --pid --fork --kill-child=KILL --mount-proc \
        chroot "$root" /vagrant/tools/provision.sh >>"$box.log" 2>&1 || { tail -n 15 "$box.log" >&2; exit 3; }
    chroot "$root" useradd --create-home --shell /bin/bash vagrant
    echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/vagrant"
    install -d -m 700 "$root/home/vagrant/.ssh"
    install -m 600 "$(find "$host/usr/share" -path '*/keys/vagrant.pub' | head -n 1)" "$root/home/vagrant/.ssh/authorized_keys"
    chroot "$root" chown -R vagrant:vagrant /home/vagrant /vagrant
    printf '[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n' >"$root/etc/systemd/network/eth0.network"
    chroot "$root" systemctl enable systemd-networkd ssh >/dev/null 2>&1
    echo netlab >"$root/etc/hostname"
    printf '127.0.0.1 localhost netlab\n' >"$root/etc/hosts"
    mkdir "$box.made"
    cp "$root"/boot/vmlinuz-* "$box.made/vmlinuz"
    cp "$root"/boot/initrd.img-* "$box.made/initrd"
    mke2fs -q -t ext4 -d "$root" "$box.made/disk" 3g
    rm -rf "$root" "$box.requirements"
    mv "$box.made" "$box"
fi

work=$(mktemp -d "$cache/run-XXXXXX")
trap 'rm -rf "$work"' EXIT
{ git ls-files -z --cached --others --exclude-standard 2>/dev/null || find . -path ./.git -prune -o -path ./.venv -prune -o -type f -print0; } |
    tar --null --files-from=- --create --ignore-failed-read 2>/dev/null | { mkdir "$work/checkout" && tar --extract --directory "$work/checkout"; }
cp tools/vagrant/inside.sh "$work"
unshare --mount --net --pid --uts --ipc --fork --kill-child=KILL --mount-proc sh -eu -c '
    host=$1 box=$2 work=$3
    mount --make-rprivate /
    mount -t tmpfs -o size=100% tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay -o "lowerdir=$host,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
    cd /mnt/root
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount --bind /dev dev
    mount -t devpts -o ptmxmode=666 devpts dev/pts
    mkdir -p box work
    mount --bind "$box" box
    mount --bind "$work" work
    ip link set lo up
    exec chroot . sh /work/inside.sh
' sh "$host" "$box" "$work" </dev/null
