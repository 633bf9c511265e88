#!/bin/sh
# Makes a virtual machine one to run netlab in: packages, netlab in a virtual environment of its own with `netlab` on everybody's
# PATH, kernel modules. Run as root, again whenever the checkout has changed: the Vagrantfile's provisioner. NETLAB_MODULES=no leaves
# the modules out (in a chroot they would be the machine's around it).
set -eu
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive VENV=/opt/netlab

if ! command -v make >/dev/null; then
    apt-get update -q
    apt-get install -y -q --no-install-recommends make
fi
tools/setup.sh
ln -sf "$VENV/bin/netlab" /usr/local/bin/netlab

# What modes and impaired links can use; a kernel without one is said here, and by `netlab doctor`.
if [ "${NETLAB_MODULES:-yes}" = yes ]; then
    mkdir -p /etc/modules-load.d
    for module in br_netfilter nf_conntrack nf_conntrack_netlink ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sh ip_vs_dh ip_vs_sed \
        ip_vs_nq sch_netem sch_tbf vxlan dummy sctp; do
        if modprobe "$module"; then echo "$module"; else echo "$module: not in this kernel" >&2; fi
    done >/etc/modules-load.d/netlab.conf
fi
