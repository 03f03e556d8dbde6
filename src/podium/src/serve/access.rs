//! Flags that say who may call the API and how, and the rule that a server beyond loopback knows its callers.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use podium_api::{AccessConfig, Password, TlsFiles};
use std::net::SocketAddr;

/// The pair of user and password, where no file holds it. A flag could be read by every user of the machine.
const CREDENTIALS: &str = "PODIUM_HTTP_CREDENTIALS";

/// Who may call the API, and how.
#[derive(Debug, Clone, Args)]
pub struct AccessArgs {
    /// A file with one line `user:password`: who sends it may do everything. Instead of a file: the variable PODIUM_HTTP_CREDENTIALS.
    #[arg(long, env = "PODIUM_HTTP_CREDENTIALS_FILE", value_name = "FILE")]
    pub http_credentials_file: Option<PathBuf>,

    /// Marathon's flag. Refused, since a command line can be read by every user of the machine.
    #[arg(long, value_name = "USER:PASSWORD", hide = true)]
    pub http_credentials: Option<String>,

    /// A file of bearer tokens' hashes with the rights of each; `podium token` makes its lines. Read again when it changes.
    #[arg(long, env = "PODIUM_TOKENS_FILE", value_name = "FILE")]
    pub tokens_file: Option<PathBuf>,

    /// Listen beyond this machine without asking anybody who they are: whoever reaches the port can run commands on the cluster.
    #[arg(long, env = "PODIUM_INSECURE_ALLOW_ANYONE")]
    pub insecure_allow_anyone: bool,

    /// The API's certificate, PEM: it then speaks https. Read again when it changes.
    #[arg(long, env = "PODIUM_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key, PEM.
    #[arg(long, env = "PODIUM_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Origins whose web pages may call the API, as `https://ui.example`; `*`: all pages may read.
    #[arg(long, env = "PODIUM_CORS_ORIGIN", value_delimiter = ',', value_name = "ORIGIN[,ORIGIN…]", value_parser = origin)]
    pub cors_origin: Vec<String>,
}

/// An origin as browsers send it; what else was given would never match.
fn origin(text: &str) -> Result<String, String> {
    let is_origin = |uri: &http::Uri| {
        let web = matches!(uri.scheme_str(), Some("http" | "https"));
        web && uri.authority().is_some_and(|authority| !authority.as_str().contains('@')) && uri.path() == "/" && uri.query().is_none()
    };
    match text == "*" || text.parse().is_ok_and(|uri| is_origin(&uri)) {
        true => Ok(text.to_owned()),
        false => Err("an origin is `https://host` or `http://host:port`, or `*` for all".to_owned()),
    }
}

impl AccessArgs {
    /// Who may call. Refuses to listen beyond loopback for everybody, unless that is said.
    pub fn callers(&self, listen: SocketAddr) -> anyhow::Result<AccessConfig> {
        self.judge(listen, std::env::var(CREDENTIALS).ok())
    }

    fn judge(&self, listen: SocketAddr, credentials: Option<String>) -> anyhow::Result<AccessConfig> {
        if self.http_credentials.is_some() {
            bail!(
                "--http-credentials: a password on a command line can be read by every user of this machine; write it to a file and name \
                 that with --http-credentials-file, or set {CREDENTIALS}"
            );
        }
        let password = match credentials.filter(|pair| !pair.is_empty()) {
            Some(pair) => Some(Password::parse(&pair).ok_or_else(|| anyhow::anyhow!("{CREDENTIALS} should be `user:password`"))?),
            None => None,
        };
        let config = AccessConfig { password, credentials_file: self.http_credentials_file.clone(), tokens_file: self.tokens_file.clone() };
        if !listen.ip().is_loopback() {
            if config.is_open() && !self.insecure_allow_anyone {
                bail!(
                    "--listen {listen} can be reached from other machines, and nobody is asked who they are: name --tokens-file or \
                     --http-credentials-file, listen on 127.0.0.1, or say --insecure-allow-anyone"
                );
            }
            if config.is_open() {
                tracing::warn!(%listen, "whoever reaches this address can run commands on the cluster");
            } else if self.tls_cert.is_none() {
                tracing::warn!(%listen, "passwords and tokens travel unencrypted: name --tls-cert and --tls-key, or put a proxy with TLS in front");
            }
        }
        Ok(config)
    }

    /// The certificate, if the API is to speak https.
    pub fn tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles { certificate: self.tls_cert.clone()?, key: self.tls_key.clone()? })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        access: AccessArgs,
    }

    fn judge(line: &[&str], listen: &str, credentials: Option<&str>) -> Result<bool, String> {
        let args = Line::try_parse_from(std::iter::once(&"podium").chain(line)).map_err(|error| error.to_string())?.access;
        args.judge(listen.parse().unwrap(), credentials.map(str::to_owned))
            .map(|config| config.is_open())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_origin_that_no_browser_sends_is_refused() {
        for good in ["*", "https://ui.example", "http://localhost:3000", "https://ui.example/", "https://a.example,http://[::1]:80"] {
            assert!(judge(&["--cors-origin", good], "127.0.0.1:8080", None).is_ok(), "{good}");
        }
        for bad in ["ui.example", "https://", "https://ui.example/page", "ftp://ui.example", "https://me@ui.example", "null", ""] {
            let refused = judge(&["--cors-origin", bad], "127.0.0.1:8080", None).unwrap_err();
            assert!(refused.contains("an origin is"), "{bad}: {refused}");
        }
    }

    #[test]
    fn beyond_loopback_callers_are_known_unless_told_otherwise() {
        assert_eq!(judge(&[], "127.0.0.1:8080", None), Ok(true));
        assert_eq!(judge(&[], "[::1]:8080", None), Ok(true));
        for listen in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:0"] {
            assert!(judge(&[], listen, None).unwrap_err().contains("--tokens-file"), "{listen}");
            assert_eq!(judge(&["--insecure-allow-anyone"], listen, None), Ok(true));
            assert_eq!(judge(&["--tokens-file", "t"], listen, None), Ok(false));
            assert_eq!(judge(&["--http-credentials-file", "c"], listen, None), Ok(false));
            assert_eq!(judge(&[], listen, Some("me:secret")), Ok(false));
        }
    }

    #[test]
    fn a_password_on_the_command_line_is_refused_and_not_repeated() {
        let error = judge(&["--http-credentials", "me:hunter2"], "127.0.0.1:8080", None).unwrap_err();
        assert!(error.contains("--http-credentials-file") && !error.contains("hunter2"), "{error}");
        let error = judge(&[], "127.0.0.1:8080", Some("hunter2")).unwrap_err();
        assert!(error.contains("user:password") && !error.contains("hunter2"), "{error}");
        assert!(judge(&["--tls-cert", "c"], "127.0.0.1:8080", None).unwrap_err().contains("--tls-key"));
    }
}
