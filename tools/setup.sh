#!/usr/bin/env bash
# Sets up what netlab needs on Debian 12/13 and Ubuntu 24.04, as an ordinary user or as root; what is there already is left alone.
#
#   tools/setup.sh             packages, permission for user namespaces, virtual environment
#   tools/setup.sh --machine   packages and permission only (the Vagrantfile's provisioner)
#
# VENV names the virtual environment (default: .venv beside this checkout). Exit code 3: this machine lacks something and root must help;
# the exact command is printed.
set -euo pipefail

cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
VENV=${VENV:-$PWD/.venv}
only_machine=${1:-}

say() { printf 'setup: %s\n' "$*" >&2; }

# Runs its arguments as root: directly, or through sudo where it works (it may ask for a password only at a terminal).
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then sudo "$@"
    else return 126
    fi
}

need_root() {
    say "this machine lacks: $1"
    say "as root, run:  $2"
    exit 3
}

# ---- packages -------------------------------------------------------------------------------------------------

missing=()
while read -r program package; do
    command -v "$program" >/dev/null || missing+=("$package")
done <<'LIST'
nft nftables
iptables iptables
ipset ipset
conntrack conntrack
ip iproute2
tcpdump tcpdump
curl curl
newuidmap uidmap
LIST
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if [ ${#missing[@]} -gt 0 ]; then
    install="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    command -v apt-get >/dev/null || need_root "${missing[*]}" "your package manager, for: ${missing[*]}"
    say "installing ${missing[*]}"
    code=0
    as_root apt-get update -q >&2 || code=$?
    [ "$code" = 126 ] && need_root "${missing[*]}" "$install"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >&2 ||
        need_root "${missing[*]} (apt-get failed, see above)" "$install"
fi

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "python3 is $(python3 -V 2>&1), netlab needs 3.11 or newer (Debian 12, Ubuntu 24.04 and later have it)"
    exit 3
}

# ---- user namespaces ------------------------------------------------------------------------------------------
# Ubuntu 24.04 lets an unprivileged program make user namespaces only if an AppArmor profile says so. A profile names a program by its
# path, and the system's python3 must not get this right for all scripts of all users; so the virtual environment holds a copy of python
# of its own, and the profile names that copy only.

knob=/proc/sys/kernel/apparmor_restrict_unprivileged_userns
restricted=no
if [ -r "$knob" ] && [ "$(cat "$knob")" = 1 ]; then restricted=yes; fi
profile=/etc/apparmor.d/netlab-$(printf %s "$VENV" | cksum | cut -d' ' -f1)

if [ "$restricted" = yes ] && [ "$(id -u)" != 0 ] && [ "$only_machine" != --machine ] && [ ! -e "$profile" ]; then
    text="# netlab: lets the python of $VENV make user namespaces, in which netlab builds its labs.
abi <abi/4.0>,
include <tunables/global>
profile $(basename "$profile") \"$VENV/bin/python*\" flags=(unconfined) {
  userns,
}"
    draft=$(mktemp)
    printf '%s\n' "$text" >"$draft"
    say "installing $profile (lets $VENV/bin/python make user namespaces)"
    as_root install -m 644 "$draft" "$profile" && as_root apparmor_parser -r -W "$profile" || {
        chmod 644 "$draft"
        need_root "permission for $VENV/bin/python to make user namespaces" "install -m 644 $draft $profile && apparmor_parser -r -W $profile"
    }
    rm -f "$draft"
fi
for knob in unprivileged_userns_clone; do
    if [ "$(id -u)" != 0 ] && [ -r /proc/sys/kernel/$knob ] && [ "$(cat /proc/sys/kernel/$knob)" = 0 ]; then
        need_root "user namespaces for ordinary users" "sysctl -w kernel.$knob=1"
    fi
done

[ "$only_machine" = --machine ] && exit 0

# ---- virtual environment --------------------------------------------------------------------------------------

stamp=$VENV/.netlab-$(cat pyproject.toml tools/setup.sh | cksum | cut -d' ' -f1)
if [ -e "$stamp" ] && "$VENV/bin/python" -c 'import netlab' 2>/dev/null; then exit 0; fi

if ! mkdir -p "$VENV" 2>/dev/null || [ ! -w "$VENV" ] || [ ! -w . ]; then
    say "cannot write to $VENV or to $PWD: copy the checkout to a directory of yours and run it there"
    exit 3
fi
say "making the virtual environment $VENV"
copies=()
[ "$restricted" = yes ] && copies=(--copies)
python3 -m venv --clear "${copies[@]}" "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]' || {
    say "pip could not install netlab's dependencies (see above); is the package index reachable?"
    exit 3
}
touch "$stamp"
