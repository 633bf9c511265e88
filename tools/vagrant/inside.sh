#!/bin/sh
# The inner half of up.sh: as root of a chroot with vagrant and libvirt, in namespaces of its own.
set -eu
export HOME=/root LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_DEFAULT_PROVIDER=libvirt
cd /work
qemu-img convert -q -f raw -O qcow2 /box/disk box.img
mkdir -p /var/lib/netlab-box /var/lib/libvirt/images /run/libvirt
cp /box/vmlinuz /box/initrd /var/lib/netlab-box
printf '{"provider": "libvirt", "format": "qcow2", "virtual_size": 3}' >metadata.json
accelerator=qemu model=qemu64
cat >Vagrantfile <<EOF
Vagrant.configure("2") do |config|
  config.vm.provider "libvirt" do |libvirt|
    libvirt.driver = "$accelerator"
    libvirt.cpu_mode = "custom"
    libvirt.cpu_model = "$model"
    libvirt.kernel = "/var/lib/netlab-box/vmlinuz"
    libvirt.initrd = "/var/lib/netlab-box/initrd"
    libvirt.cmd_line = "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off"
  end
end
EOF
tar --create --file netlab.box metadata.json Vagrantfile box.img

# No systemd, no cgroups and no other user in here.
useradd --system --user-group --no-create-home libvirt-qemu 2>/dev/null || true  # libvirtd looks for it, whoever runs QEMU
cat >/etc/libvirt/qemu.conf <<EOF
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
remember_owner = 0
stdio_handler = "file"
EOF
printf 'auth_unix_rw = "none"\nauth_unix_ro = "none"\n' >/etc/libvirt/libvirtd.conf
libvirtd >libvirtd.log 2>&1 &
for _ in $(seq 300); do
    [ ! -S /run/libvirt/libvirt-sock ] || break
    sleep 0.2
done
[ -S /run/libvirt/libvirt-sock ] || { echo "vagrant-up: libvirtd does not come up:" >&2; cat libvirtd.log >&2; exit 1; }

vagrant box add --name netlab/local netlab.box >box.log 2>&1 || { cat box.log >&2; exit 1; }
cd /work/checkout
export NETLAB_BOX=netlab/local
started=$(date +%s)
vagrant up --no-color | tr "\r" "\n" | grep -v "^.\{0,4\}Progress:"
echo "vagrant-up: up and provisioned in $(($(date +%s) - started)) s"
vagrant ssh -c "sudo netlab doctor" || exit
code=0
# Not mode userspace: where the processor is emulated, its proxy processes are too slow for the 250 ms that they give an endpoint.
for mode in iptables nftables ipvs; do
    vagrant ssh -c "sudo netlab run /vagrant/scenarios/clusterip.yaml /vagrant/scenarios/nodeport.yaml --proxy $mode" || code=$?
done
vagrant destroy -f
exit "$code"
