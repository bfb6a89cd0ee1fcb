use super::*;

fn copy(agent: &str, role: &'static str) -> CopyStatus {
    CopyStatus {
        agent: agent.to_owned(),
        path: "/srv/nfs/pvc-1".to_owned(),
        role,
        peer: Some("peer".to_owned()),
        epoch: 1,
        newest_point: Some("12".to_owned()),
        newest_taken_at_unix_secs: Some(1_795_257_000),
        confirmed_at_unix_secs: Some(1_795_257_000),
        rpo_age_seconds: Some(42),
        oldest_read_unix_secs: None,
        health: "ok",
        health_because: Vec::new(),
        paused: false,
        resync: false,
        running_job: None,
    }
}

fn agent(name: &str, error: Option<&str>) -> AgentStatus {
    AgentStatus { name: name.to_owned(), reachable: error.is_none(), error: error.map(str::to_owned) }
}

fn report(copies: Vec<CopyStatus>) -> StatusReport {
    let volume = VolumeStatus {
        id: "0d9c1b5e-6d6e-4c57-9a41-0a6f5f3f8d11".to_owned(),
        name: "nfs/pvc-1".to_owned(),
        both_primary: false,
        because: Vec::new(),
        copies,
    };
    StatusReport::judged(vec![agent("site-a", None), agent("site-b", None)], vec![volume], Vec::new())
}

#[test]
fn a_healthy_pair() {
    let mut secondary = copy("site-b", "secondary");
    secondary.running_job = Some("cli-1".to_owned());
    let report = report(vec![copy("site-a", "primary"), secondary]);
    assert_eq!(report.exit(), Exit::Ok);
    let text = report.text();
    let (shown, as_of) = text.split_once("\nas of ").unwrap();
    assert_eq!(
        shown,
        "\
healthy: 1 volume on 2 agents

VOLUME    PATH            AGENT   ROLE       EPOCH  NEWEST  RPO  HEALTH  JOB
0d9c1b5e  /srv/nfs/pvc-1  site-a  primary    1      12      42s  ok
          /srv/nfs/pvc-1  site-b  secondary  1      12      42s  ok      cli-1
"
    );
    assert!(as_of.ends_with(" UTC\n"));
}

#[test]
fn two_primaries_are_loud() {
    let report = report(vec![copy("site-a", "primary"), copy("site-b", "primary")]);
    assert_eq!(report.exit(), Exit::Failure);
    let text = report.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "NOT HEALTHY: nfs/pvc-1: split-brain: site-a and site-b are both primary; demote the one to be given up, then \
         resync it (what it holds is kept as a restore point)"
    );
    assert_eq!(lines[1], "!!! BOTH COPIES OF nfs/pvc-1 ARE PRIMARY !!!");
    assert!(lines[4].contains("PRIMARY"), "{text}");
}

#[test]
fn an_agent_that_is_away_is_the_reason_not_its_volumes() {
    let mut report = report(vec![copy("site-a", "primary")]);
    assert_eq!(report.because, ["nfs/pvc-1: has no replica: only site-a has a copy; enable it at another agent"]);
    let agents = vec![agent("site-a", None), agent("site-b", Some("agent site-b at https://b:7171 can't be reached"))];
    report = StatusReport::judged(agents, report.volumes, Vec::new());
    assert_eq!(report.because, ["agent site-b at https://b:7171 can't be reached"]);
    assert_eq!(report.exit(), Exit::Unreachable);
}

#[test]
fn each_reason_says_what_to_do() {
    let mut never = copy("site-b", "secondary");
    never.newest_point = None;
    assert_eq!(
        report(vec![copy("site-a", "primary"), never]).because,
        ["nfs/pvc-1: the replica at site-b was never synced; run `drover sync`"]
    );

    let mut rolled_back = copy("site-b", "secondary");
    rolled_back.paused = true;
    rolled_back.health = "degraded";
    rolled_back.health_because = vec!["rolled back: syncs pause".to_owned(), "metadata only".to_owned()];
    let report_text = report(vec![copy("site-a", "primary"), rolled_back]).text();
    assert_eq!(
        report_text.lines().take(3).collect::<Vec<_>>(),
        [
            "NOT HEALTHY: nfs/pvc-1: the replica at site-b was rolled back and is not synced; run `drover rollback \
             VOLUME --release` (and 1 more)",
            "  - nfs/pvc-1: the replica at site-b was rolled back and is not synced; run `drover rollback VOLUME \
             --release`",
            "  - nfs/pvc-1: the copy at site-b is degraded: metadata only",
        ]
    );

    let mut newer = copy("site-b", "secondary");
    newer.epoch = 3;
    assert_eq!(
        report(vec![copy("site-a", "primary"), newer]).because,
        ["nfs/pvc-1: the primary at site-a (epoch 1) was superseded by site-b (epoch 3)"]
    );
    assert_eq!(
        report(vec![copy("site-a", "secondary"), copy("site-b", "secondary")]).because,
        ["nfs/pvc-1: no copy is primary; promote one"]
    );
}

#[test]
fn the_volume_of_a_copy_needs_no_other_side() {
    let mut alone = copy("site-b", "secondary");
    alone.peer = None;
    assert_eq!(report(vec![alone.clone()]).because, [""; 0]);
    alone.peer = Some("site-a".to_owned());
    assert_eq!(report(vec![alone]).because, ["nfs/pvc-1: no copy is primary; promote one"]);
}

#[test]
fn nothing_protected_is_not_called_healthy_volumes() {
    let report = StatusReport::judged(vec![agent("site-a", None)], Vec::new(), Vec::new());
    assert_eq!(report.text(), "healthy: no volume is protected yet on 1 agent\n");
}
