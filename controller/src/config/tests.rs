use super::*;

const SAMPLE: &str = r#"
[tls]
ca = "certs/ca.pem"
certificate = "/etc/drover/controller.pem"
key = "certs/controller.key"

[[agents]]
name = "site-a"
address = "https://127.0.0.1:7171"
server_name = "site-a.drover"

[[agents]]
name = "site-b"
address = "https://10.0.0.2:7171"
"#;

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("drover.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn connect(path: &Path, agents: &[&str]) -> Connect {
    let agents = agents.iter().map(|text| text.parse().unwrap()).collect();
    Connect { config: Some(path.to_owned()), agents, ..Connect::default() }
}

#[test]
fn files_are_found_from_the_configuration() {
    let (dir, path) = written(SAMPLE);
    let config = connect(&path, &[]).resolve().unwrap();
    let tls = config.tls.unwrap();
    assert_eq!(tls.ca, dir.path().join("certs/ca.pem"));
    assert_eq!(tls.certificate, Path::new("/etc/drover/controller.pem"));
    assert_eq!(config.agents.len(), 2);
    assert_eq!(config.agents[0].server_name.as_deref(), Some("site-a.drover"));
}

#[test]
fn an_unknown_field_is_refused_with_its_line() {
    let (_dir, path) = written("[[agents]]\nname = \"a\"\nadress = \"https://a:1\"\n");
    let error = connect(&path, &[]).resolve().unwrap_err().to_string();
    assert!(error.contains("line 3") && error.contains("adress"), "{error}");
}

#[test]
fn agent_names_select_and_urls_add() {
    let (_dir, path) = written(SAMPLE);
    let config = connect(&path, &["site-b", "c=https://c:7171"]).resolve().unwrap();
    let names: Vec<&str> = config.agents.iter().map(|agent| agent.name.as_str()).collect();
    assert_eq!(names, ["site-b", "c"]);

    let error = connect(&path, &["site-x"]).resolve().unwrap_err().to_string();
    assert_eq!(
        error,
        "no agent is called site-x; configured are site-a, site-b. Use --agent NAME=URL for one that is not configured"
    );
    assert_eq!("https://a:1".parse::<AgentChoice>().unwrap_err(), "give the agent a name: --agent NAME=https://a:1");
}

#[test]
fn flags_replace_the_files_tls_as_a_whole() {
    let (_dir, path) = written(SAMPLE);
    let flags = |ca: Option<&str>| Connect {
        ca: ca.map(PathBuf::from),
        cert: Some("me.pem".into()),
        key: Some("me.key".into()),
        ..connect(&path, &[])
    };
    assert_eq!(flags(Some("ca.pem")).resolve().unwrap().tls.unwrap().ca, Path::new("ca.pem"));
    let error = flags(None).resolve().unwrap_err().to_string();
    assert_eq!(error, "--ca, --cert and --key belong together: --ca is missing");
}

#[test]
fn plain_text_stays_on_this_host() {
    let agent = |address: &str| AgentConfig { name: "a".into(), address: address.into(), server_name: None };
    for (address, transport) in [
        ("https://a:7171", Some(Transport::Tls)),
        ("unix:///run/drover.sock", Some(Transport::Plain)),
        ("http://127.0.0.1:7171", Some(Transport::Plain)),
        ("http://localhost.example.com:7171", None),
        ("http://10.0.0.1:7171", None),
        ("10.0.0.1:7171", None),
    ] {
        assert_eq!(agent(address).transport(), transport, "{address}");
    }
}

#[test]
fn same_names_and_missing_tls_are_told() {
    let twice = "[[agents]]\nname = \"a\"\naddress = \"unix:/a\"\n".repeat(2);
    let (_dir, path) = written(&twice);
    assert_eq!(
        connect(&path, &[]).resolve().unwrap_err().to_string(),
        "two agents are called a; each needs a name of its own"
    );
    let (_dir, path) = written("[[agents]]\nname = \"a\"\naddress = \"https://a:1\"\n");
    assert_eq!(
        connect(&path, &[]).resolve().unwrap_err().to_string(),
        "agent a: address https://a:1 needs TLS: give --ca, --cert and --key, or [tls] in drover.toml"
    );
}
