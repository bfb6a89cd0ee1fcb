#!/bin/sh
# The cephx user for setting up the mirroring of one pool: site name, bootstrap tokens, peers. Run it once on each of the
# two clusters, as an administrator, and take the user away when both sites see each other:
#
#   deploy/ceph/setup.sh POOL
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
pool=${1:?usage: setup.sh POOL}

ceph auth get-or-create client.drover-setup \
    mon 'profile rbd, allow command "auth get-or-create" with entity=client.rbd-mirror-peer, allow command "config-key get" with key prefix rbd/mirror/, allow command "config-key set" with key prefix rbd/mirror/, allow command "config-key rm" with key prefix rbd/mirror/peer/' \
    osd "profile rbd pool=$pool" \
    -o ceph.client.drover-setup.keyring
