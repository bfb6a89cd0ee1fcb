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
    sites.clusters.b.rbd(&["snap", "purge", "--no-progress", sites.there().spec()]);
    sites.clusters.b.rbd(&["rm", "--no-progress", sites.there().spec()]);
    sites.enable();
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
    sites.b.kill();
    sites.refused(disable(&sites.a, &sites.volume, Keep, false), "copy-would-go");
    disable(&sites.a, &sites.volume, Keep, true).expect("let the copy go");
    process::until("the copy is deleted", SYNCED, || (!sites.there().exists()).then_some(()));
    sites.here().content().assert_is(&content, "the image itself");
}
