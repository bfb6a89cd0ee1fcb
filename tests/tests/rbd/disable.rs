//! The end of an image's mirroring, and what becomes of its copy.

use super::*;

fn disable(agent: &Agent, volume: &str, disposal: v1::Disposal, force: bool) -> Result<(), Status> {
    let client = Sites::client(agent);
    let request = v1::DisableRequest { volume_id: volume.to_owned(), disposal: disposal.into(), force };
    client.call(client.replication().disable(request)).map(drop)
}

fn is_unknown(agent: &Agent, volume: &str) -> bool {
    Sites::client(agent).info(volume).is_err_and(|status| status.code() == tonic::Code::NotFound)
}

#[test]
fn a_copy_is_kept_unless_it_is_said_that_it_may_go() {
    const NAME: &str = "a_copy_is_kept_unless_it_is_said_that_it_may_go";
    /// rbd-mirror deletes the copy of an image that is not mirrored any more within a second.
    const DELETED: Duration = Duration::from_secs(15);
    /// Agents look at the trash once a minute.
    const SWEPT: Duration = Duration::from_secs(150);
    use v1::Disposal::{Forget, Keep};
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
    let content = sites.here().content();
    sites.refused(disable(&sites.a, &sites.volume, Keep, false), "copy-would-go");
    // Forgotten there, it is mirrored all the same.
    disable(&sites.b, &sites.volume, Forget, false).expect("forget the volume");
    assert!(is_unknown(&sites.b, &sites.volume));
    sites.refused(disable(&sites.a, &sites.volume, Keep, false), "copy-would-go");
    sites.enable();
    disable(&sites.b, &sites.volume, Keep, false).expect("disable the copy");
    assert!(is_unknown(&sites.b, &sites.volume));
    disable(&sites.a, &sites.volume, Keep, false).expect("no copy is mirrored any more");
    thread::sleep(DELETED);
    sites.there().content().assert_is(&content, "the copy is kept");
    let is_point = |name: &str| name.starts_with("drover.");
    let points = |image: Image<'_>| image.snapshots().iter().filter(|snapshot| is_point(&snapshot.name)).count();
    assert_eq!((points(sites.here()), points(sites.there())), (0, 1), "points at the primary, and of the copy");
    sites.write_there(4);
    sites.say("the copy was kept, and can be written to");

    // Once more, for a copy that may go.
    sites.b.setup.more += "[defaults]\ntrash_days = 0\n";
    sites.b.restart(&Faults::none());
    let id = sites.there().id();
    sites.clusters.b.rbd(&["trash", "mv", sites.there().spec()]);
    process::until("an image in the trash can be purged", SWEPT, || {
        let purged = ["trash", "rm", "--no-progress", &format!("{}/{id}", sites.clusters.b.pool())];
        sites.clusters.b.try_rbd(&purged, SYNCED).is_ok_and(|done| done.status.success()).then_some(())
    });
    sites.enable();
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
    sites.b.kill();
    sites.refused(disable(&sites.a, &sites.volume, Keep, false), "copy-would-go");
    disable(&sites.a, &sites.volume, Keep, true).expect("let the copy go");
    process::until("the copy is deleted", SYNCED, || (!sites.there().exists()).then_some(()));
    sites.here().content().assert_is(&content, "the image itself");
}

/// librbd promotes a secondary before it ends its mirroring, so that it looks like a primary half way.
#[test]
fn a_disable_whose_agent_dies_is_finished_and_keeps_the_points() {
    const NAME: &str = "a_disable_whose_agent_dies_is_finished_and_keeps_the_points";
    const IN_THE_CALL: Duration = Duration::from_secs(3);
    use v1::Disposal::Keep;
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
    let content = sites.here().content();
    // Connected, so that the look needs the OSD alone; what changes needs the monitors.
    sites.info(&sites.b);
    sites.clusters.b.stop_processes(&[Kind::Mon]);
    thread::scope(|scope| {
        let (client, volume) = (Sites::client(&sites.b), sites.volume.clone());
        let request = v1::DisableRequest { volume_id: volume, disposal: Keep.into(), force: false };
        let disabled = scope.spawn(move || client.call(client.replication().disable(request)).map(drop));
        thread::sleep(IN_THE_CALL);
        assert!(!disabled.is_finished(), "the end of mirroring waits for the monitors");
        let pid = rustix::process::Pid::from_raw(sites.b.pid().expect("a running agent").cast_signed());
        rustix::process::kill_process(pid.expect("a process"), rustix::process::Signal::KILL).expect("kill the agent");
        disabled.join().expect("it ends").expect_err("its agent was killed");
    });
    sites.clusters.b.cont(&[Kind::Mon]);
    sites.b.restart(&Faults::none());
    let image = sites.clusters.b.rbd_json(&["info", sites.there().spec()]);
    println!("{NAME}: half way it is {}", image["mirroring"]);
    disable(&sites.b, &sites.volume, Keep, false).expect("it is finished");
    sites.there().content().assert_is(&content, "the copy is kept");
    let points = sites.there().snapshots().iter().filter(|snapshot| snapshot.name.starts_with("drover.")).count();
    assert_eq!(points, 1, "its point");
    disable(&sites.a, &sites.volume, Keep, false).expect("no copy is mirrored any more");
    sites.write_there(4);
}
