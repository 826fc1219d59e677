//! TLS on a connection. Source: `protocol.md` section 1.9: the same port as without, and the client speaks first.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Whom to trust, and as whom to come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    /// Authorities in PEM; `None` takes those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// This client's certificate chain and key in PEM, where servers ask for one.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// The name that certificates must carry; `None` takes the host that is dialled.
    pub(crate) server_name: Option<String>,
    /// Whether any certificate will do.
    pub(crate) insecure: bool,
}

/// Makes TLS connections of TCP ones.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    ///
    /// Which file cannot be read or holds something else, in words for people.
    pub(crate) fn new(settings: &TlsSettings) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if settings.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
        } else {
            builder.with_root_certificates(roots(settings.ca.as_deref())?)
        };
        let config = match &settings.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(|error| {
                    format!("{} and {} do not go together: {error}", cert.display(), key.display())
                })?
            }
        };
        let name = |name: &String| {
            ServerName::try_from(name.clone())
                .map_err(|_| format!("{name:?} is neither a host name nor an address"))
        };
        let server_name = settings.server_name.as_ref().map(name).transpose()?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), server_name })
    }

    /// Shakes hands with the server at `address`, which is `host:port`.
    pub(crate) async fn connect(&self, address: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        self.connector.connect(name, stream).await
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates = match ca {
        Some(file) => certificates(file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (added, _) = roots.add_parsable_certificates(certificates);
    match (added, ca) {
        (0, Some(file)) => Err(format!("{} holds no certificate of an authority", file.display())),
        (0, None) => {
            Err("this system has no certificates of authorities; name a file under `tls.ca`".to_owned())
        }
        _ => Ok(roots),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |error| format!("{} cannot be read as certificates in PEM: {error}", file.display());
    let certificates = CertificateDer::pem_file_iter(file).map_err(unreadable)?;
    certificates.collect::<Result<_, _>>().map_err(unreadable)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|error| format!("{} cannot be read as a private key in PEM: {error}", file.display()))
}

/// For `insecure`: checks that the server has the key of the certificate that it shows, and nothing else.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_or_something_else_is_named() {
        let here = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        let missing = PathBuf::from("no/such.pem");
        for (settings, words) in [
            (TlsSettings { ca: Some(missing.clone()), ..TlsSettings::default() }, "no/such.pem"),
            (
                TlsSettings { ca: Some(here.clone()), ..TlsSettings::default() },
                "no certificate of an authority",
            ),
            (
                TlsSettings { insecure: true, identity: Some((missing, here)), ..TlsSettings::default() },
                "no/such.pem",
            ),
            (
                TlsSettings { insecure: true, server_name: Some("a b".into()), ..TlsSettings::default() },
                "\"a b\" is neither",
            ),
        ] {
            let error = Tls::new(&settings).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
