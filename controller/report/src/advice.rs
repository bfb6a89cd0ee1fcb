//! The stable reasons of errors: what happened, and what to do. The README's table is this one; a test keeps it so.

pub struct Reason {
    pub name: &'static str,
    pub what: &'static str,
    pub advice: &'static str,
}

const fn reason(name: &'static str, what: &'static str, advice: &'static str) -> Reason {
    Reason { name, what, advice }
}

const LATER: &str = "try again; what was received is kept";
const BUG: &str = "a bug, or releases that don't fit: update both agents; if it stays, report it with the agents' logs";
const ANEW: &str = "keep a copy of the directory beside the volumes, then disable the volume and enable it again";

/// Sorted by name.
pub const REASONS: &[Reason] = &[
    reason(
        "apply-not-permitted",
        "an entry of the replica can't be changed (immutable, or a capability is missing); the old point was restored",
        "look at lsattr of the path that is named, make it changeable, and sync again",
    ),
    reason("apply-undone", "a commit was undone after a crash; the old point stands", LATER),
    reason("bad-page-token", "the page token is none that this agent gave", "begin the list anew"),
    reason(
        "bad-request-id",
        "the request id is not 1 to 128 characters of [A-Za-z0-9._:-]",
        "choose another --request-id",
    ),
    reason(
        "bad-snapshot-record",
        "a record of a snapshot is none: a name that Kubernetes would not take, a manifest that is not JSON or too long, or too many in one call",
        "correct what the message names; nothing of the call was kept",
    ),
    reason(
        "beside-missing",
        "a root for devices names no directory for what lies beside them",
        "set `beside` for the root in the agent's configuration",
    ),
    reason(
        "beside-on-other-filesystem",
        "the directory for Drover's state is not on the file system of its root",
        "choose a `beside` on the same file system as the root",
    ),
    reason(
        "beside-unusable",
        "the directory for Drover's state can't be used",
        "look at its owner (root) and its mode (0700), and at the disk",
    ),
    reason(
        "block-damaged",
        "a directory block arrived with a wrong digest",
        "sync again; if it stays, check memory and disks of the other side",
    ),
    reason(
        "both-primary",
        "both copies are primary, so both may have been written",
        "decide which one is to be given up: demote it, resync it, sync; what it holds is kept as a restore point",
    ),
    reason("cancelled", "someone cancelled it", "nothing; what was received is kept for the next sync"),
    reason(
        "catalogue-full",
        "the catalogue of snapshots has a million records",
        "delete what nobody needs; records that were deleted are forgotten after 90 days",
    ),
    reason(
        "catalogue-unusable",
        "the catalogue of snapshots can't be read or written",
        "look at the disk of `state_dir`; a damaged `catalogue.redb` can be moved away, the peer brings what it knows with the next syncs",
    ),
    reason(
        "ceph-blocklisted",
        "the cluster has blocklisted the agent's worker",
        "try again: a new worker is started; if it stays, look at `ceph osd blocklist ls`",
    ),
    reason(
        "ceph-busy",
        "the image is in use, or its peer is primary as far as this cluster knows",
        "stop what uses the image, or look at the peer",
    ),
    reason("ceph-error", "a call of librbd failed", "look at the errno in the message and at the cluster's health"),
    reason("ceph-exists", "what was to be made is there already", "look at the image's snapshots and names"),
    reason(
        "ceph-invalid",
        "librbd refuses the call in this state of the image",
        "look at `drover-agent volume info` and at `rbd mirror image status`",
    ),
    reason(
        "ceph-not-found",
        "the cluster has no such pool, key or object, or librbd is not installed",
        "check the configuration of the ceph, its keyring, and that librbd1 is installed",
    ),
    reason(
        "ceph-not-permitted",
        "the agent's cephx user may not do this",
        "give it the capabilities of deploy/ceph/daily.sh; to set a pool up the user of deploy/ceph/setup.sh, as setup_user in the configuration",
    ),
    reason(
        "ceph-read-only",
        "the image can't be written to now: it is not primary, or another client holds its lock",
        "look who has it open; after a demotion wait for rbd-mirror",
    ),
    reason(
        "ceph-timed-out",
        "the cluster did not answer in time",
        "look at the cluster's health, then at the volume, and try again",
    ),
    reason("ceph-unreachable", "no worker could reach the cluster", "look at the cluster's health and at the network"),
    reason(
        "ceph-workers-busy",
        "all workers of the cluster are busy, because calls hang",
        "look at the cluster's health, and try again",
    ),
    reason(
        "client-shared",
        "the client that writes to the image has other images open, which it would lose as well",
        "stop it, or say --whole-client",
    ),
    reason(
        "commit-open",
        "the copy was lost in the middle of a commit",
        "put its directory back; the message says what else can be done",
    ),
    reason(
        "content-mismatch",
        "content arrived with a wrong digest, again and again",
        "sync again; if it stays, check memory and disks of the source",
    ),
    reason(
        "copy-would-go",
        "ending the mirroring of a primary image has rbd-mirror delete the peer's copy",
        "disable the volume at the peer first, which keeps its copy as an image of its own; or --force, and the copy goes",
    ),
    reason(
        "device-busy",
        "something is mounted or built on the replica's device",
        "unmount it, or detach what is built on it; lsblk shows it",
    ),
    reason(
        "device-size",
        "the two copies have different sizes, and a device can't be given another one",
        "make the replica's device as large as the primary",
    ),
    reason(
        "device-without-identity",
        "the device has no WWN, UUID or serial number that tells it from others",
        "use another name or driver for it, or waive it with `--waive device-identity` when its name is certain",
    ),
    reason(
        "empty-source",
        "the source is empty and the replica is not",
        "check that the source is mounted; if it is meant to be empty, give --allow-empty-source",
    ),
    reason(
        "export-shared",
        "the export that leads to the directory leads to more, whose clients would be shut out as well",
        "give the directory an export of its own, or say --whole-export",
    ),
    reason(
        "exports-busy",
        "another call looks at exports or changes them, and the NFS server is slow",
        "try again; look whether the NFS server hangs",
    ),
    reason(
        "exports-syntax",
        "the NFS server's configuration can't be understood, so it is left as it is",
        "put right the line that the message names, or move what Drover can't edit to a file of its own",
    ),
    reason(
        "exports-unwritable",
        "a file of the NFS server's configuration can't be read or replaced",
        "make it readable and writable to the agent (root), and try again; the agent does so by itself every few seconds",
    ),
    reason(
        "fence-journal",
        "the journal of fences in the agent's state directory can't be read or written",
        "look at the disk of state_dir; a damaged journal is moved away by hand, after the exports were put right by hand",
    ),
    reason(
        "fenced-briefly",
        "a client was on the cluster's blocklist before, and the cluster keeps the shorter time",
        "make sure that the client is dead; when its entry is over, fence again",
    ),
    reason(
        "foreign-write",
        "somebody changed the size of a secondary image while it was synced",
        "keep clients away from it (`rbd status` names them); the sync is tried again",
    ),
    reason("frame-damaged", "a message was damaged on its way", LATER),
    reason("frame-malformed", "a message can't be understood", BUG),
    reason(
        "group-apart",
        "some images of the group are primary, and not by a promotion of the group",
        "demote those (`volume demote --alone`), or promote the others one by one with --alone",
    ),
    reason(
        "group-behind",
        "an image holds its group back: no sync of it has brought a cut for long",
        "sync that image, or disable it at both agents; the group goes on then",
    ),
    reason("group-elsewhere", "the group's images are of another cluster", "choose another --group"),
    reason(
        "group-half-done",
        "some images of the group are done, and others failed",
        "repair what the message names, then repeat the verb: what is done stays done",
    ),
    reason(
        "group-half-promoted",
        "a promotion of the group by force was interrupted",
        "repeat it with --force; it ends on the same point",
    ),
    reason(
        "group-in-cut",
        "another agent takes a snapshot of the group",
        "it is tried again by itself; otherwise repeat it",
    ),
    reason(
        "group-not-primary",
        "an image of the group is not primary here, so the group can't be cut at one moment",
        "promote it with its group, or disable it and enable it in no group",
    ),
    reason(
        "group-size",
        "the group has too many images here, or none, or one alone where several are cut at one moment",
        "at most 128; give some another --group",
    ),
    reason(
        "group-uneven",
        "the images of the group are at different points",
        "cut them anew with `group point`, sync each of them once, then repeat; by force they end on the newest point that all have",
    ),
    reason(
        "image-busy",
        "somebody has the image open for writing",
        "stop the guest, or detach the loop device (`losetup -j IMAGE`, `fuser IMAGE`), then try again",
    ),
    reason(
        "image-changing",
        "the image's mirroring is being begun or ended by another hand",
        "wait, or finish it (`rbd mirror image disable --force`), then try again",
    ),
    reason(
        "image-gone",
        "the copy's image was never made, or was removed",
        "sync first; if it had points, disable the volume there and enable it again with the same --id",
    ),
    reason("image-in-two-clusters", "several clusters of the agent have an image by that name", "name the cluster"),
    reason(
        "image-in-use",
        "a client has the image's lock, and its next write would be acknowledged and lost",
        "stop that client; of a mirrored image `drover-agent volume info` names it, and `volume fence` shuts it out; the lock of one that died counts no more after 30 s",
    ),
    reason(
        "image-in-verb",
        "a verb, sync or verification of this image is under way, at this agent or another one of the cluster",
        "wait for it, or cancel that job; if that agent is dead, try again after the time in the message: its worker is shut out, and the verb taken over",
    ),
    reason(
        "image-is-clone",
        "the image is a clone of one that is not mirrored",
        "enable its parent first, or this one with --flatten",
    ),
    reason(
        "image-lock-lost",
        "the agent's worker that kept other clients out of the image was lost in the middle: nothing was made of what it had done",
        "start it again",
    ),
    reason(
        "image-locked",
        "somebody has locked the image by hand (`rbd lock add`), so nobody can tell who writes to it",
        "`rbd lock ls`, then remove that lock (`rbd lock rm`) or wait until it is gone",
    ),
    reason(
        "image-settling",
        "the image took the place of a half copied one, and is being made independent of it",
        "use it; it is mirrored within minutes, and can then be demoted or get sync points",
    ),
    reason(
        "image-with-data-pool",
        "an image of the group is further than its newest common point, and no clone can take its place",
        "promote the images one by one with --alone; each ends on a point of its own",
    ),
    reason(
        "image-without-lock",
        "the image has no exclusive lock, so nobody can tell who writes to it",
        "`rbd feature enable IMAGE exclusive-lock`, and have its clients open it anew",
    ),
    reason(
        "in-group",
        "the image belongs to a group, whose images end on one point",
        "use `drover-agent group`; --alone for this image only",
    ),
    reason("internal", "a bug", "report it with the agent's log"),
    reason(
        "io-error",
        "the storage of one side failed",
        "look at the kernel's log and the disk that is named; the replica is its last whole point",
    ),
    reason(
        "is-delta",
        "the image is a volume that the agents sync",
        "disable that volume before the image is mirrored; the points of a primary go with it",
    ),
    reason(
        "is-mirrored",
        "the image is mirrored by rbd-mirror",
        "take its points with `drover-agent volume point`; to have the agents sync it instead, disable the volume first",
    ),
    reason(
        "is-primary",
        "the copy is primary here",
        "if it shall become the secondary, demote it first with `drover-agent volume demote`; if `enable` says this and it shall stay primary, enable it with --role primary",
    ),
    reason("job-journal", "the agent can't write its job journal", "look at the file system of its state_dir"),
    reason("job-queue-full", "too many jobs wait at this agent", "wait, or raise limits.jobs"),
    reason("job-without-route", "the job's journal entry names no peer", BUG),
    reason(
        "journal-mode",
        "the image is mirrored by its journal",
        "disable mirroring of the image and enable it by snapshots",
    ),
    reason("link-closed", "the connection was cut", LATER),
    reason("link-lost", "the connection was cut", LATER),
    reason("malformed-field", "a field of the call can't be understood", "fix the call"),
    reason(
        "manifest-damaged",
        "the manifest of a restore point is damaged",
        "use another restore point; check the disk",
    ),
    reason("mark-damaged", "the mark that names a volume is damaged", ANEW),
    reason(
        "mass-delete",
        "more would be deleted than the guard allows",
        "if the deletes in the plan (--dry-run) are meant, raise the limit with --max-delete",
    ),
    reason(
        "missing-capabilities",
        "the process lacks capabilities that faithful copies need",
        "run it as root, or waive them: `--waive capabilities`",
    ),
    reason("missing-field", "a field of the call is missing", "fix the call"),
    reason(
        "mount-point-inside",
        "something is mounted inside the volume; mounts are not crossed",
        "unmount it, or make it a volume of its own",
    ),
    reason(
        "never-synced",
        "the copy was never synced",
        "sync it first, or promote it with --force if an empty volume shall be primary",
    ),
    reason(
        "nfs-server",
        "the NFS server, or the way to it, does not answer or refuses",
        "look at the message and at the server's log; what was begun is carried out by the agent once it answers",
    ),
    reason(
        "no-common-point",
        "no point is whole on every image of the group",
        "a disk that was added lately has no point there yet: wait, or take it out of the group (its whole `volume enable`, with --group ''); one by one, with --alone, each ends on a point of its own",
    ),
    reason("no-file-named", "the volume is a directory, and the call names no file in it", "name one with --file"),
    reason(
        "no-image",
        "the cluster has no such image",
        "create it; at the secondary, wait until rbd-mirror has copied it",
    ),
    reason(
        "no-nfs-server",
        "the configuration of the agent names no NFS server, so it can't shut clients out",
        "say which one serves this host: `server` in its section [nfs], and restart the agent",
    ),
    reason(
        "no-parent-directory",
        "the directory that the volume was in is not there any more",
        "make it, then restore again",
    ),
    reason(
        "no-peer",
        "the volume has no peer and the call names none",
        "enable the volume with --peer; what `drover-agent copy` made is compared by its --verify",
    ),
    reason(
        "no-reflink",
        "the file system can't clone files, which the points of an image in a file are",
        "put it on XFS or btrfs, or protect it as a block-file",
    ),
    reason(
        "no-space",
        "the replica's file system has too little space for the worst case",
        "free space there, or keep fewer restore points (retain)",
    ),
    reason(
        "no-such-ceph",
        "no ceph of that name is in the agent's configuration",
        "use a name that is there, or add a [[ceph]]",
    ),
    reason(
        "no-such-directory",
        "the directory that is to be fenced can't be found",
        "check its path, and that its file system is mounted",
    ),
    reason("no-such-file", "the point has no such file", "look for its path in another point, or in the tree"),
    reason(
        "no-such-group",
        "no image of the agent's clusters is in that group",
        "enable its images with --group, at both agents",
    ),
    reason("no-such-image", "the volume is no RBD image of this agent", "for other volumes there is `drover sync`"),
    reason(
        "no-such-job",
        "the agent knows no such job",
        "look with `drover status`; the ends of the newest 1,000 jobs are kept",
    ),
    reason("no-such-point", "the copy has no such restore point", "choose one of `drover points VOLUME`"),
    reason("no-such-root", "the agent has no root of that name", "choose one of `drover-agent check`"),
    reason("no-such-rpc", "the agent has no such call", "update the older side; neighbouring releases work together"),
    reason(
        "no-such-snapshot",
        "no snapshot of that name is known of the volume",
        "look at `drover-agent snapshots list`; records come with the volume's syncs",
    ),
    reason(
        "no-such-volume",
        "the agent has no such volume",
        "look with `drover status`; enable it with `drover-agent volume enable`",
    ),
    reason(
        "no-volume-in-trash",
        "what is in the trash is no volume: it is what others had written to one",
        "take what you need of it out of `.drover/trash` by hand",
    ),
    reason(
        "not-exported",
        "no export of this host's NFS server leads to the directory",
        "nothing is to be shut; `drover-agent exports list` prints what is served",
    ),
    reason(
        "not-fenced",
        "nothing is shut for the volume or path that was named",
        "`drover-agent exports list` prints the fences and what they are for",
    ),
    reason(
        "not-in-trash",
        "there is nothing of that name in the trash",
        "look at `drover-agent trash list`; it was put back, or purged",
    ),
    reason("not-mirrored", "the image is not mirrored by snapshots", "enable the volume at the primary"),
    reason(
        "not-of-delta",
        "the agents sync this image: schedules, mirror snapshots and fences are for mirrored ones, and its group has its own rules",
        "do what the message says instead",
    ),
    reason(
        "not-of-mirrored",
        "rbd-mirror mirrors this image: what the call asks for is of other volumes",
        "do what the message says instead",
    ),
    reason(
        "not-primary",
        "the image is not primary here",
        "call the agent at the other site, or promote this copy first",
    ),
    reason(
        "not-seen",
        "librbd said that it changed the image, and the image does not show it",
        "look at the cluster's health and at the image, then try again",
    ),
    reason(
        "not-synced",
        "a primary holds more than its newest sync point",
        "stop what writes to it and sync, then demote; with --force what was written stays behind on this copy",
    ),
    reason(
        "not-the-marked-tree",
        "the directory is not the one that was enabled: replaced, or its file system is not mounted",
        "mount it, or put the old directory back, which is noticed within ten seconds; if it is gone for good, disable the volume",
    ),
    reason(
        "not-the-volumes-peer",
        "the volume names another peer than the agent that called",
        "enable the volume with the right --peer at both agents",
    ),
    reason(
        "not-unfenced",
        "the clients are not all let in again; the agent goes on trying",
        "look at the message; `drover-agent exports list` says what is left",
    ),
    reason(
        "nothing-arrived",
        "no sync of the image has ever arrived whole: a promotion would leave an empty image",
        "bring the primary back; there is nothing to promote",
    ),
    reason(
        "other-device",
        "another device has the name of the one that was enabled",
        "attach the right one under that name; if the device was replaced for good, disable the volume and enable it again",
    ),
    reason(
        "other-image",
        "the volume or the image belongs to another one",
        "use the id and the image that belong together",
    ),
    reason(
        "other-kind",
        "one copy is a directory, the other a block volume",
        "disable one of them and enable it with the --kind of the other",
    ),
    reason(
        "other-nfs-server",
        "fences stand that were made while the configuration named another kind of NFS server",
        "lift them with that one in the configuration (`drover-agent exports list`), then change it",
    ),
    reason(
        "other-parent-directory",
        "the file of a volume in the trash lay in a directory that was replaced since",
        "take the file and its points out of `.drover/trash` by hand",
    ),
    reason("other-volume", "the two sides speak of different volumes", "enable both copies with the same --id"),
    reason(
        "outcome-unknown",
        "a worker was lost in the middle of a change",
        "look at the volume: the message says whether the worker was blocklisted, so that nothing can arrive later",
    ),
    reason("panic", "a bug", "report it with the agent's log"),
    reason(
        "partly-undone",
        "an apply could not finish and not everything could be undone; the paths are in the log",
        "repair what the log names, then sync: it repairs the replica",
    ),
    reason("path-occupied", "something is where the volume was", "move it away, then restore again"),
    reason(
        "path-taken",
        "the path belongs to, contains or lies in another volume",
        "choose another path, or disable the other volume",
    ),
    reason(
        "peer-denied",
        "the peer does not accept this agent's certificate",
        "add the certificate's name to roles.peer at the peer",
    ),
    reason("peer-failed", "the other side failed", "its own reason stands in its log and in the message"),
    reason(
        "peer-has-volume",
        "the peer protects the volume whose replica is to be deleted",
        "disable it at the peer first; or --force, and the replica waits in the trash",
    ),
    reason(
        "peer-in-verb",
        "an agent at the other site is in the middle of a verb of this volume",
        "wait until it has ended and try again; `drover-agent volume info` there names it",
    ),
    reason(
        "peer-is-primary",
        "the copy at the peer is primary and the peer answers",
        "demote it there first; --force does not override this, since both sites would be written to (if it can't be demoted, end the agent there)",
    ),
    reason(
        "peer-needed",
        "the verb depends on what the peer has, and that is missing or not known",
        "see that the agent at the peer answers, then do what the message says",
    ),
    reason("peer-refused", "the peer refused the session", "its reason stands in the message"),
    reason("peer-unavailable", "the peer is busy or stopping", LATER),
    reason(
        "peer-unreachable",
        "the peer does not answer",
        "check its address, its port and that it runs; the job tries again by itself",
    ),
    reason(
        "point-damaged",
        "a verification found that this point's content here is not what the source had",
        "sync, which mends the newest one, and verify again; or take another point; with force where nothing better is left",
    ),
    reason(
        "point-incomplete",
        "a restore point lost content that a write of others to the copy destroyed",
        "sync, which repairs a replica, and try again; else use another restore point",
    ),
    reason(
        "point-not-at-source",
        "the replica's newest point, which a verification compares, has no snapshot at the source any more",
        "sync, then verify again",
    ),
    reason(
        "point-not-whole",
        "the point is not whole on the image any more",
        "look at `drover-agent group info`, and repeat",
    ),
    reason(
        "pool-in-use",
        "images of the pool are mirrored, or it has peers",
        "disable those images first, then `drover-agent pool remove-peer`",
    ),
    reason(
        "pool-mode",
        "the pool does not mirror single images",
        "`drover-agent pool enable CEPH/POOL` at both sites, then `pool token` at one and `pool import` at the other",
    ),
    reason(
        "pool-mode-journal",
        "the pool mirrors all its images by their journals",
        "end the mirroring of its images, then, as an administrator, `rbd mirror pool enable POOL image`",
    ),
    reason(
        "pool-not-configured",
        "the agent's configuration does not list the image's pool",
        "add it to `pools` of the [[ceph]]",
    ),
    reason("pool-of-namespace", "peers belong to the whole pool", "name the pool without its namespace"),
    reason(
        "pool-without-peer",
        "mirror snapshots of the pool would go to nobody",
        "import a token at the other site (`drover-agent pool token`, `pool import`) and see that rbd-mirror runs there",
    ),
    reason(
        "promote-unsafe",
        "a promotion would lose something",
        "sync, or wait for what has not arrived; or promote with --force and lose what the message names",
    ),
    reason(
        "promoted-in-a-sync",
        "a sync began in the instant of a promotion by force, which ended behind the last complete sync, or beyond its group's point",
        "don't use the image: `rbd snap rollback` to the point that is named, then promote again with --accept-point and its number; one of a group with --alone, and then its group",
    ),
    reason("protocol", "the other side sent what it should not", BUG),
    reason("protocol-violated", "the other side sent what it should not", BUG),
    reason(
        "quota-exceeded",
        "the quota of the replica is used up; the old point was restored",
        "raise the quota or free space, then sync again",
    ),
    reason("rbd-trash", "an RBD image is not moved to the trash", "disable the volume without --trash"),
    reason(
        "replica-changed",
        "someone else changed the replica while a point was applied; the old point was restored",
        "stop who writes the replica, then sync again: it repairs the replica",
    ),
    reason(
        "replica-not-empty",
        "the directory, file or image of a new secondary is not empty",
        "choose an empty one, or take it over with --adopt: what it holds is kept as a restore point",
    ),
    reason("request-id-in-use", "another request was made under this request id", "choose another --request-id"),
    reason("role-changed", "the copy was promoted or demoted meanwhile", "look at `drover status`, then decide"),
    reason(
        "role-may-not-call",
        "no role of the certificate may make this call",
        "add the certificate's name to the right role in the agent's [roles]",
    ),
    reason(
        "rolled-back",
        "the replica was rolled back, so it is not synced",
        "when the old point is no longer needed: `drover rollback VOLUME --release`",
    ),
    reason(
        "root-locked",
        "another drover process works on this root",
        "use its agent (HOST:PORT:PATH), or stop it first",
    ),
    reason("root-not-marked", "the root has no .drover directory", "check that its file system is mounted"),
    reason("root-unusable", "the root can't be opened", "check that it exists and is mounted"),
    reason("sessions-full", "the agent runs as many sessions as it may", "wait, or raise limits.sessions"),
    reason("shutting-down", "the agent is stopping", LATER),
    reason(
        "site-has-a-name",
        "the cluster has a site name already, by which its peers know it",
        "leave --site-name out, or say the name that it has",
    ),
    reason(
        "snapshot-failed",
        "the command that makes the snapshot of a primary failed",
        "run the command that the message names by hand; see [root.snapshot] of the configuration",
    ),
    reason(
        "snapshot-gone",
        "a point's snapshot was removed by another hand",
        "sync again: an older point that both sites have is taken, or all of the image",
    ),
    reason("source-missing", "the image of the source is not there", "put it back, or promote the replica"),
    reason("source-not-primary", "the source's copy is not primary", "promote it, or sync from its peer"),
    reason(
        "source-read-failed",
        "a file of the source can't be read",
        "look at the disk of the source; nothing was synced",
    ),
    reason(
        "source-restless",
        "content changes faster than it can be read",
        "sync when it is quieter, or from a snapshot",
    ),
    reason(
        "source-unreadable",
        "entries of the source can't be read, so nothing was synced or deleted",
        "look at the disk and the rights of the path that is named",
    ),
    reason(
        "split-brain",
        "the replica's point is not in the source's history",
        "compare both histories; resync the copy to be given up (what it holds is kept as a restore point)",
    ),
    reason(
        "staging-failed",
        "the replica's side could not write what it received",
        "look at the agent's log and the disk",
    ),
    reason(
        "staging-on-other-filesystem",
        "staging can't reach the volume by rename (project quota, subvolume or mount)",
        "configure `beside` where renames reach the volume",
    ),
    reason("state-damaged", "the state of the volume is damaged", ANEW),
    reason(
        "state-unknown",
        "an agent of another release wrote what is known of the volume",
        "use that release, or a later one",
    ),
    reason(
        "still-written",
        "clients still have the image open although its writers were shut out",
        "stop what starts them (the scheduler, the hypervisor), then fence again",
    ),
    reason(
        "superseded",
        "the other copy was promoted later",
        "if the other copy is primary, demote this one and sync from it; if this one shall stay primary, resync the other (what it holds is kept as a restore point)",
    ),
    reason(
        "sync-half-copied",
        "a sync of the image is half copied, and no sync point is whole that could take its place",
        "wait for the sync; if the primary is gone for good, keep the image as it is: `rbd mirror image promote --force` would go back behind the newest whole snapshot, to nothing even",
    ),
    reason("too-many", "a request names more than the agent takes at once", "split the request"),
    reason("too-many-requests", "the other side asked for more than it may at once", BUG),
    reason(
        "tree-unusable",
        "the directory, file or device of the volume can't be opened",
        "check its path, its kind (--kind block-file for a file or device) and that it is mounted; if it is gone for good, disable the volume",
    ),
    reason(
        "unknown-enum-value",
        "the call has a value that this release does not know",
        "update the agent, or fix the call",
    ),
    reason(
        "unknown-peer",
        "the configuration has no such peer",
        "add a [[peer]], or enable the volume with another --peer",
    ),
    reason(
        "unsuitable-path",
        "the path can't be a volume",
        "the message says why; choose another, or configure `beside`",
    ),
    reason("value-too-large", "a value of the call is too large", "fix the call"),
    reason(
        "verb-taken-over",
        "another agent has taken this verb over",
        "look at `drover-agent volume info`, then decide",
    ),
    reason(
        "verb-unknown",
        "an agent of another release left a verb of the image unfinished",
        "run that release again, or update this agent",
    ),
    reason(
        "version-mismatch",
        "the two releases have no message version in common",
        "update the older agent; neighbouring releases work together",
    ),
    reason("volume-busy", "another operation works on the volume", "wait for it, or cancel it"),
    reason(
        "volume-differs",
        "the volume exists with another path or role",
        "look with `drover-agent volume info`; use another id, or disable it first",
    ),
    reason(
        "volume-is-there",
        "a volume with the id of the one in the trash was enabled since",
        "disable that one first",
    ),
    reason(
        "volume-not-open",
        "no volume of that id is open at the agent, and one of its roots is not open either",
        "see that the root's file system is mounted; the agent looks again within ten seconds",
    ),
    reason(
        "volume-on-other-root",
        "the volume is enabled on another root of this agent",
        "use that root, or another id",
    ),
];

pub fn advice(reason: &str) -> Option<&'static str> {
    REASONS.iter().find(|known| known.name == reason).map(|known| known.advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_sorted_and_unique() {
        assert!(REASONS.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn the_readme_has_this_table() {
        let readme = include_str!("../../../README.md");
        for Reason { name, what, advice } in REASONS {
            let row = format!("| `{name}` | {what} | {advice} |\n");
            assert!(readme.contains(&row), "README.md lacks this row:\n{row}");
        }
    }
}
