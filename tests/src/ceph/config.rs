//! The configuration of one cluster.

use std::{fs, path::Path};

use super::ports::Ports;

/// Shorter than Ceph's own: 1 s between a monitor's decisions, 30 s until rbd-mirror sees a new pool or a promotion.
const WAITS: &str = "paxos_propose_interval = 0.1
rbd_mirror_pool_replayers_refresh_interval = 5
rbd_mirror_image_state_check_interval = 3
";

/// One OSD, one replica, next to others on a machine whose disk may be nearly full.
const SMALL: &str = "osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_objectstore = bluestore
bluestore_block_size = 8589934592
osd_memory_target = 939524096
osd_mclock_skip_benchmark = true
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_warn = 2
mon_data_avail_crit = 1
mgr_initial_modules =
";

const SECURITY: &str = "auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
setuser_match_path =
";

/// Everything of the cluster lies in `dir`, all keys of its daemons in one keyring. Users that are made later have each
/// their own, so that the name is enough for a client.
pub(super) fn write(dir: &Path, fsid: &str, ports: &Ports) {
    let (first, last) = ports.others();
    let at = dir.display();
    let text = format!(
        "[global]
fsid = {fsid}
mon_host = {monitor}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
ms_bind_port_min = {first}
ms_bind_port_max = {last}
keyring = {at}/ceph.$name.keyring,{at}/keyring
run_dir = {at}/run
admin_socket = {at}/run/$name.$cctid.asok
log_file = {at}/log/$name.log
log_to_stderr = false
pid_file =
crash_dir = {at}/crash
mon_data = {at}/mon
mgr_data = {at}/mgr
osd_data = {at}/osd
{SECURITY}{SMALL}{WAITS}",
        monitor = ports.monitor(),
    );
    fs::write(dir.join("ceph.conf"), text).expect("write ceph.conf");
    for name in ["run", "log", "crash", "mon", "mgr", "osd"] {
        fs::create_dir(dir.join(name)).expect("make a directory of the cluster");
    }
}
