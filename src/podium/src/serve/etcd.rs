//! Flags that say how `podium server` reaches its etcd: addresses, certificates, user.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use podium_store::{StoreConfig, StoreTls};

/// How etcd is reached.
#[derive(Debug, Clone, Args)]
pub struct EtcdArgs {
    /// etcd's endpoints.
    #[arg(long, env = "PODIUM_ETCD", required = true, value_delimiter = ',', value_name = "URL[,URL…]", value_parser = crate::address::Address)]
    pub etcd: Vec<String>,

    /// The authority that signed etcd's certificates, PEM; its endpoints are then https.
    #[arg(long, env = "PODIUM_ETCD_CA_FILE", value_name = "FILE")]
    pub etcd_ca_file: Option<PathBuf>,

    /// Our certificate for etcd, PEM, where it asks for one.
    #[arg(long, env = "PODIUM_ETCD_CERT", value_name = "FILE", requires = "etcd_key")]
    pub etcd_cert: Option<PathBuf>,

    /// Its private key, PEM.
    #[arg(long, env = "PODIUM_ETCD_KEY", value_name = "FILE", requires = "etcd_cert")]
    pub etcd_key: Option<PathBuf>,

    /// Our name to etcd, where authentication is switched on there.
    #[arg(long, env = "PODIUM_ETCD_USER", value_name = "NAME", requires = "etcd_password_file")]
    pub etcd_user: Option<String>,

    /// A file with our password for etcd.
    #[arg(long, env = "PODIUM_ETCD_PASSWORD_FILE", value_name = "FILE", requires = "etcd_user")]
    pub etcd_password_file: Option<PathBuf>,
}

impl EtcdArgs {
    /// What the store's client needs, read from the files.
    pub fn config(&self, prefix: &str) -> anyhow::Result<StoreConfig> {
        let encrypted = self.etcd_ca_file.is_some() || self.etcd_cert.is_some();
        let endpoints = self.etcd.iter().map(|url| with_scheme(url, encrypted));
        let mut config = StoreConfig { prefix: prefix.to_owned(), ..StoreConfig::new(endpoints) };
        let https = config.endpoints.iter().filter(|url| url.starts_with("https://")).count();
        if https > 0 && https < config.endpoints.len() {
            bail!("--etcd: either all endpoints are https or none");
        }
        if encrypted && https == 0 {
            bail!("--etcd: with --etcd-ca-file or --etcd-cert the endpoints must be https");
        }
        if https > 0 {
            let read = |flag, path: &Option<PathBuf>| path.as_deref().map(|path| file(flag, path)).transpose();
            let identity = read("--etcd-cert", &self.etcd_cert)?.zip(read("--etcd-key", &self.etcd_key)?);
            config.tls = Some(StoreTls { ca: read("--etcd-ca-file", &self.etcd_ca_file)?, identity, domain: None });
        }
        if let (Some(name), Some(path)) = (&self.etcd_user, &self.etcd_password_file) {
            let password = String::from_utf8(file("--etcd-password-file", path)?)
                .map_err(|_| anyhow::anyhow!("--etcd-password-file {}: it is no text", path.display()))?;
            config.user = Some((name.clone(), password.trim_end_matches(['\r', '\n']).to_owned()));
        }
        Ok(config)
    }
}

fn file(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{flag} {}", path.display()))
}

fn with_scheme(url: &str, encrypted: bool) -> String {
    match (url.contains("://"), encrypted) {
        (true, _) => url.to_owned(),
        (false, true) => format!("https://{url}"),
        (false, false) => format!("http://{url}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        etcd: EtcdArgs,
    }

    fn config(line: &[&str]) -> Result<StoreConfig, String> {
        let args = Line::try_parse_from(std::iter::once(&"podium").chain(line)).map_err(|error| error.to_string())?;
        args.etcd.config("/podium").map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn certificates_make_the_endpoints_https_and_a_mixture_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, "pem").unwrap();
        let ca = ca.to_str().unwrap();
        assert_eq!(config(&["--etcd", "a:1,b:2"]).unwrap().endpoints, ["http://a:1", "http://b:2"]);
        let secure = config(&["--etcd", "a:1", "--etcd-ca-file", ca]).unwrap();
        assert_eq!(secure.endpoints, ["https://a:1"]);
        assert_eq!(secure.tls.unwrap().ca.as_deref(), Some(&b"pem"[..]));
        assert!(config(&["--etcd", "https://a:1"]).unwrap().tls.is_some(), "the machine's own authorities");
        assert!(config(&["--etcd", "http://a:1", "--etcd-ca-file", ca]).err().unwrap().contains("https"));
        assert!(config(&["--etcd", "http://a:1,https://b:1"]).err().unwrap().contains("either"));
        assert!(config(&["--etcd", "a:1", "--etcd-ca-file", "/absent.pem"]).err().unwrap().contains("--etcd-ca-file /absent.pem"));
        assert!(config(&["--etcd", "a:1", "--etcd-user", "me"]).err().unwrap().contains("--etcd-password-file"));
    }

    #[test]
    fn the_password_comes_from_a_file_without_its_end_of_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "se cret\n").unwrap();
        let config = config(&["--etcd", "a:1", "--etcd-user", "me", "--etcd-password-file", path.to_str().unwrap()]).unwrap();
        assert_eq!(config.user, Some(("me".to_owned(), "se cret".to_owned())));
    }
}
