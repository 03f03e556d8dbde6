//! Whom a client believes to be an `https://` server: the certificate authorities of a file, or those of the machine.
//!
//! rustls with ring, as everywhere in Podium: TLS 1.2 and 1.3, names and addresses checked, nothing that switches the
//! checks off.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Why authorities can't be believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    File {
        /// As given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds no certificate that can be used.
    #[error("{path}: {reason}; it should hold the authority's certificate as PEM (-----BEGIN CERTIFICATE-----)")]
    Content {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The machine has none of its own.
    #[error("this machine has no usable certificate authorities ({0}); name a file with the one that signed the server's certificate")]
    System(String),
    /// The library refuses its own defaults.
    #[error("TLS can't be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// The authorities that may vouch for a server.
#[derive(Debug, Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// The authorities of a PEM file, and no others.
    ///
    /// # Errors
    /// [`TrustError`], which names the file.
    pub fn of_file(path: &Path) -> Result<Self, TrustError> {
        let pem = std::fs::read(path).map_err(|source| TrustError::File { path: path.to_owned(), source })?;
        let content = |reason: String| TrustError::Content { path: path.to_owned(), reason };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| content(error.to_string()))?;
            roots.add(certificate).map_err(|error| content(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(content("no certificate in it".to_owned()));
        }
        Self::of_roots(roots)
    }

    /// The machine's own authorities, or those that `SSL_CERT_FILE` names.
    ///
    /// # Errors
    /// [`TrustError::System`].
    pub fn of_system() -> Result<Self, TrustError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let reason = found.errors.first().map_or_else(|| "none was found".to_owned(), ToString::to_string);
            return Err(TrustError::System(reason));
        }
        Self::of_roots(roots)
    }

    fn of_roots(roots: RootCertStore) -> Result<Self, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(Self(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
    }

    /// For other users of rustls.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::ServerConfig;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::{Client, Credentials, Error, Url};

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    fn pem(der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    fn client(authority: &Authority) -> Client {
        let trust = Trust::of_file(file(&pem(authority.as_ref().der())).path()).unwrap();
        let credentials = Some(Credentials { principal: "p".into(), secret: "s".into() });
        let config =
            crate::ClientConfig { trust: Some(trust), credentials, response_timeout: Duration::from_secs(20), ..Default::default() };
        Client::new(config).unwrap()
    }

    /// A server that is certified under `name` and answers with the head of what it was asked.
    async fn server(authority: &Authority, name: &str) -> Url {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/x", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(socket).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len());
                stream.write_all(&[answer.as_bytes(), &head].concat()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        url
    }

    #[tokio::test]
    async fn a_server_that_the_authority_of_the_file_vouches_for_is_spoken_to_with_credentials() {
        let authority = authority();
        let url = server(&authority, "127.0.0.1").await;
        let answer = client(&authority).get(&url).await.unwrap().bytes().await.unwrap();
        assert!(String::from_utf8_lossy(&answer).to_lowercase().contains("authorization: basic cdpz"), "{answer:?}");
    }

    #[tokio::test]
    async fn a_server_that_nobody_vouches_for_or_that_has_another_name_is_told_nothing() {
        let authority = authority();
        for (url, reason) in [
            (server(&self::authority(), "127.0.0.1").await, "invalid peer certificate"),
            (server(&authority, "other.example").await, "not valid for name"),
        ] {
            let refused = client(&authority).get(&url).await.unwrap_err();
            assert!(matches!(refused, Error::Connect { .. }) && refused.nothing_was_sent(), "{refused}");
            assert!(refused.to_string().contains(reason), "{refused}");
        }
    }

    #[tokio::test]
    async fn without_a_file_the_machine_does_not_vouch_for_a_strange_server() {
        let url = server(&authority(), "127.0.0.1").await;
        let refused = Client::new(crate::ClientConfig::default()).unwrap().get(&url).await.unwrap_err();
        assert!(refused.nothing_was_sent(), "{refused}");
    }

    #[tokio::test]
    async fn a_server_without_tls_is_an_error_and_no_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
                let _ = socket.read(&mut [0; 512]).await;
            }
        });
        let refused = client(&authority()).get(&url).await.unwrap_err();
        assert!(matches!(refused, Error::Connect { .. }), "{refused}");
    }

    #[test]
    fn a_file_that_vouches_for_nobody_is_refused_by_name() {
        let missing = Trust::of_file(Path::new("/nonexistent/ca.pem")).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/ca.pem"), "{missing}");
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for content in ["", "not a certificate", broken, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            let file = file(content);
            let refused = Trust::of_file(file.path()).unwrap_err().to_string();
            assert!(refused.contains(&file.path().display().to_string()) && refused.contains("PEM"), "{refused}");
        }
    }
}
