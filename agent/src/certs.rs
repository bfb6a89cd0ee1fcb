//! `drover-agent certs init`: a development CA and the certificates of agents, controller and viewer.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
    net::Ipv4Addr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Directory of the files; made when missing
    dir: PathBuf,
    /// Agent to make a certificate for, once for each; its DNS name becomes NAME.drover
    #[arg(long = "name", value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// Clients that have a certificate besides the agents.
const CLIENTS: [&str; 2] = ["controller", "viewer"];

pub fn init(args: &InitArgs) -> anyhow::Result<ExitCode> {
    args.names.iter().try_for_each(|name| check_name(name))?;
    let dir = &args.dir;
    DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| format!("make {}", dir.display()))?;
    let ca = authority(dir)?;
    for name in &args.names {
        leaf(dir, name, Kind::Agent, &ca)?;
    }
    for name in CLIENTS {
        leaf(dir, name, Kind::Client, &ca)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label = (1..=63).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('-');
    ensure!(is_label, "--name {name:?} is no DNS label: 1 to 63 of a-z, 0-9 and -");
    ensure!(name != "ca" && !CLIENTS.contains(&name), "--name {name}: that file belongs to another certificate");
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Agent,
    Client,
}

fn authority(dir: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
    match (certificate.try_exists()?, key.try_exists()?) {
        (true, true) => {
            let pem = |path: &Path| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
            let key = KeyPair::from_pem(&pem(&key)?).context("read ca.key")?;
            println!("kept     {}", certificate.display());
            // The issuer's parameters are fixed below, so the old certificate need not be parsed.
            return Ok(Issuer::new(authority_params(), key));
        }
        (false, false) => {}
        _ => bail!("only one of ca.pem and ca.key is in {}; remove or restore it", dir.display()),
    }
    let (params, pair) = (authority_params(), KeyPair::generate().context("make the CA's key")?);
    let signed = params.self_signed(&pair).context("sign the CA's certificate")?;
    write(&key, &pair.serialize_pem(), 0o600)?;
    write(&certificate, &signed.pem(), 0o644)?;
    Ok(Issuer::new(params, pair))
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Drover development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Fixed dates keep the parameters equal from run to run; certificates for production come from a real CA.
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2044, 1, 1);
    params
}

fn leaf(dir: &Path, name: &str, kind: Kind, ca: &Issuer<'static, KeyPair>) -> anyhow::Result<()> {
    let (certificate, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    if certificate.try_exists()? || key.try_exists()? {
        println!("kept     {}", certificate.display());
        return Ok(());
    }
    let mut names = vec![format!("{name}.drover")];
    if kind == Kind::Agent {
        names.push("localhost".to_owned());
    }
    let mut params = CertificateParams::new(names).with_context(|| format!("name certificate {name}"))?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2044, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if kind == Kind::Agent {
        params.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    let pair = KeyPair::generate().with_context(|| format!("make the key of {name}"))?;
    let signed = params.signed_by(&pair, ca).with_context(|| format!("sign the certificate of {name}"))?;
    write(&key, &pair.serialize_pem(), 0o600)?;
    write(&certificate, &signed.pem(), 0o644)
}

/// Never overwrites.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = made.with_context(|| format!("make {}", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("write {}", path.display()))?;
    println!("wrote    {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_second_run_adds_and_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certs");
        let run = |name: &str| init(&InitArgs { dir: dir.clone(), names: vec![name.to_owned()] }).unwrap();
        run("site-a");
        let before = fs::read(dir.join("site-a.key")).unwrap();
        run("site-a");
        run("site-b");
        assert_eq!(fs::read(dir.join("site-a.key")).unwrap(), before);
        for key in ["ca.key", "site-a.key", "site-b.key", "controller.key", "viewer.key"] {
            assert_eq!(fs::metadata(dir.join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
        }
    }

    #[test]
    fn names_that_are_files_of_others_are_refused() {
        for name in ["ca", "controller", "../a", "A", ""] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
