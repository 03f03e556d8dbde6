//! Encryption of the API: rustls, with a certificate that is read again when its files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::access::{AccessError, Fresh};

/// Where the certificate stands.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// PEM: our certificate, then those between it and the authority's.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// How connections are encrypted.
#[derive(Debug)]
pub(crate) struct Tls {
    config: Fresh<ServerConfig>,
}

impl Tls {
    /// Reads the certificate; it has to fit its key.
    pub(crate) fn open(files: TlsFiles, look_again: Duration) -> Result<Self, AccessError> {
        Ok(Self { config: Fresh::open(vec![files.certificate, files.key], look_again, read)? })
    }

    /// Agrees on an encrypted connection, by the certificate as it is now.
    pub(crate) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.config.get()).accept(stream).await
    }
}

fn read(texts: &[Vec<u8>]) -> Result<ServerConfig, String> {
    let [certificates, key] = texts else { return Err("a certificate and a key are wanted".to_owned()) };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificates).collect::<Result<_, _>>().map_err(|error| format!("the certificate: {error}"))?;
    if chain.is_empty() {
        return Err("the certificate: there is none in the file; it should be PEM".to_owned());
    }
    // rustls' words for a key that is none name no part of it.
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key: {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused_with_the_reason_and_without_its_content() {
        let error = read(&[b"hunter2".to_vec(), b"hunter2".to_vec()]).unwrap_err();
        assert!(!error.contains("hunter2") && error.contains("certificate"), "{error}");
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let pem = certified.cert.pem().into_bytes();
        let error = read(&[pem.clone(), b"hunter2".to_vec()]).unwrap_err();
        assert!(!error.contains("hunter2") && error.contains("key"), "{error}");
        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        assert!(read(&[pem.clone(), other.signing_key.serialize_pem().into_bytes()]).is_err(), "a key of another certificate");
        assert!(read(&[pem, certified.signing_key.serialize_pem().into_bytes()]).is_ok());
    }
}
