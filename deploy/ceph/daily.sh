#!/bin/sh
# The cephx user of the agent for its daily work on its pools: run it once on each of the two clusters, as an administrator.
#
#   deploy/ceph/daily.sh POOL...
#
# It writes ceph.client.drover.keyring into the current directory; give it to the agent's user, mode 0600. Another run
# keeps the key. Name all pools each time, also data pools of their own: capabilities are replaced, not added.
#
# mon  profile rbd                       read the state of the cluster, make snapshots, shut a client out (blocklist add)
#      osd blocklist, blocklistop=rm     let a client in again; 'osd blocklist clear' stays forbidden
#      config-key get, one key           the name of this site: without it librbd gives the fsid in its place
# mgr  profile rbd                       schedules of mirror snapshots: find those of others, and replace them
#      service dump                      whether rbd-mirror runs
# osd  profile rbd                       images, snapshots, mirroring, trash, and the objects in which agents keep roles,
#                                        epochs and locks (omap)
#
# What it can't do: name the site, make or import a bootstrap token, read or change peers. That is setup.sh.
set -eu
[ $# -gt 0 ] || { echo "usage: daily.sh POOL..." >&2; exit 2; }
pools=$(printf ', profile rbd pool=%s' "$@")
pools=${pools#, }

# One that is there keeps its key, and gets the capabilities for these pools in the place of those that it had.
ceph auth get-or-create client.drover >/dev/null
ceph auth caps client.drover \
    mon 'profile rbd, allow command "osd blocklist" with blocklistop=rm, allow command "config-key get" with key=rbd/mirror/site_name' \
    mgr "$pools, allow command \"service dump\"" \
    osd "$pools"
ceph auth get client.drover -o ceph.client.drover.keyring
