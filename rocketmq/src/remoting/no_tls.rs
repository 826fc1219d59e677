//! In the place of TLS where the feature `tls` is off: nothing but the reason.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;

use tokio::net::TcpStream;

/// What would have been asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    pub(crate) server_name: Option<String>,
    pub(crate) insecure: bool,
}

/// There is none.
#[derive(Debug, Clone)]
pub(crate) struct Tls(Infallible);

impl Tls {
    pub(crate) fn new(_: &TlsSettings) -> Result<Self, String> {
        Err("TLS needs the feature `tls`: `cargo add rocketmq --features tls`".to_owned())
    }

    #[expect(clippy::unused_async, reason = "it is async where there is something to do")]
    pub(crate) async fn connect(&self, _: &str, _: TcpStream) -> io::Result<TcpStream> {
        match self.0 {}
    }
}
