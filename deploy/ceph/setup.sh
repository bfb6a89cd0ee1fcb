#!/bin/sh
# The cephx user for setting up the mirroring of pools: site name, bootstrap tokens, peers. Run it once on each of the
# two clusters, as an administrator, and take the user away when both sites see each other:
#
#   deploy/ceph/setup.sh POOL...
#   ceph auth rm client.drover-setup
#
# It writes ceph.client.drover-setup.keyring into the current directory. The pool must have the application rbd.
#
# mon  profile rbd                       read the state of the cluster
#      auth get-or-create, one entity    the user by which the other site's rbd-mirror reads this one
#      config-key get, set, rm           the name of this site, and address and key of each peer
# osd  profile rbd                       mode and peers of the pool
#
# Keep it apart from the agent's daily user: it reads the peer's key, and it decides what client.rbd-mirror-peer may do
# where that user does not exist yet.
set -eu
[ $# -gt 0 ] || { echo "usage: setup.sh POOL..." >&2; exit 2; }
pools=$(printf ', profile rbd pool=%s' "$@")
pools=${pools#, }

# One that is there keeps its key, and gets the capabilities for these pools in the place of those that it had.
ceph auth get-or-create client.drover-setup >/dev/null
ceph auth caps client.drover-setup \
    mon 'profile rbd, allow command "auth get-or-create" with entity=client.rbd-mirror-peer, allow command "config-key get" with key prefix rbd/mirror/, allow command "config-key set" with key prefix rbd/mirror/, allow command "config-key rm" with key prefix rbd/mirror/peer/' \
    osd "$pools"
ceph auth get client.drover-setup -o ceph.client.drover-setup.keyring
