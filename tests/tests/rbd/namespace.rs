//! An image in a RADOS namespace, whose mirroring the agents set up.

use super::*;

const NAMESPACE: &str = "tenant";

#[test]
fn an_image_in_a_namespace_fails_over() {
    const NAME: &str = "an_image_in_a_namespace_fails_over";
    if let Some(why) = Release::Pacific.missing() {
        return skip::skipped(NAME, &why);
    }
    let begun = Instant::now();
    let clusters = Clusters::start(Release::Pacific);
    clusters.mirror();
    let scratch = Scratch::new("namespace");
    let [mut a, mut b] = agents(&clusters, &scratch);
    for (agent, cluster) in [(&mut a, &clusters.a), (&mut b, &clusters.b)] {
        cluster.rbd(&["namespace", "create", &format!("{}/{NAMESPACE}", cluster.pool())]);
        agent.kill();
        let pools = format!("pools = [\"{0}\", \"{0}/{NAMESPACE}\"]", cluster.pool());
        agent.setup.more = agent.setup.more.replace(&format!("pools = [\"{}\"]", cluster.pool()), &pools);
        agent.start(&Faults::none());
        let (cluster, pool, namespace) = ("ceph".to_owned(), cluster.pool().to_owned(), NAMESPACE.to_owned());
        let request = v1::EnablePoolRequest {
            pool: Some(v1::PoolSpec { cluster, pool, namespace }),
            ..v1::EnablePoolRequest::default()
        };
        let client = Sites::client(agent);
        let enabled = client.call(client.pools().enable_pool(request)).expect("enable the namespace");
        assert_eq!(enabled.pool.expect("the pool").mode(), v1::PoolMode::Image);
    }
    let (here, there) = (clusters.a.image(&format!("{NAMESPACE}/vm")), clusters.b.image(&format!("{NAMESPACE}/vm")));
    here.create(16 * MIB);
    here.write(&[(MIB, b"of a tenant")]);
    let volume = uuid::Uuid::new_v4().to_string();
    for (agent, role) in [(&a, VolumeRole::Primary), (&b, VolumeRole::Secondary)] {
        let image = v1::RbdImage { namespace: NAMESPACE.to_owned(), ..rbd_image(&clusters.a, "vm") };
        Sites::client(agent).enable(enable_request(&volume, image, role)).expect("enable the image");
    }
    let point = |agent: &Agent| {
        let client = Sites::client(agent);
        let request = v1::CreateMirrorSnapshotRequest { volume_id: volume.clone() };
        let taken = client.call(client.replication().create_mirror_snapshot(request)).expect("take a sync point");
        taken.point.expect("the point").number
    };
    let mirror = |agent: &Agent| Sites::client(agent).info(&volume).expect("look at the volume").mirror;
    let arrived = |agent: &Agent, number: u64| {
        process::until("the point is whole at the other site", SYNCED, || {
            let points = mirror(agent)?.points;
            points.iter().any(|point| point.number == number && point.whole).then_some(())
        });
    };
    arrived(&b, point(&a));
    println!("{NAME}: the first point has arrived after {:.1?}", begun.elapsed());
    let refused = Sites::client(&b).promote(&volume, true).expect_err("the other site is primary");
    assert_eq!(status_reason(&refused), "peer-is-primary", "{refused}");
    for [from, to] in [[&a, &b], [&b, &a]] {
        Sites::client(from).demote(&volume).expect("demote");
        process::until("a promotion is safe", SYNCED, || mirror(to)?.promote_unsafe.is_none().then_some(()));
        Sites::client(to).promote(&volume, false).expect("promote");
        arrived(from, point(to));
    }
    there.content().assert_is(&here.content(), "after the failback");
    println!("{NAME}: failed over and back after {:.1?}", begun.elapsed());
}
