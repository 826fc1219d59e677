//! How to reach a cluster: its name servers, the client's settings, credentials and TLS.

use std::fmt;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use serde_json::{Value as Json, json};

use super::client::ClientConfig;
use super::documented::settings;
use super::section::Section;
use super::value::{Hint, Raw, Value, ValueError};

settings! {
/// The connection keys: at the top level those of the cluster `default`, repeated under `clusters:` for
/// others.
///
/// Another cluster takes what its `client` does not say from the `client` of the top level. Credentials
/// and TLS are never taken over: they belong to one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// Where the name servers are. Required in a file; `embedded` when made by hand.
    pub name_servers: NameServers,
    /// How this process behaves as a client of the cluster.
    pub client: ClientConfig,
    /// Credentials to sign requests with; default: none.
    pub acl: Option<AclConfig>,
    /// TLS on every connection; default: off.
    pub tls: TlsConfig,
}
}

impl ClusterConfig {
    pub(super) fn read(&mut self, keys: &mut Section<'_, '_>) {
        keys.document(Self::FIELDS);
        if !keys.has("name_servers") && !keys.seems_to_have("name_servers") && !keys.is_by_hand() {
            // Not quietly the embedded server: in production that would be a cluster that nobody sees.
            keys.problem_with(
                "name_servers",
                "is missing; write `host:9876`, or `embedded` for a server in this process",
            );
        }
        keys.checked("name_servers", &mut self.name_servers, NameServers::check);
        keys.section("client", |keys| self.client.read(keys));
        keys.section("acl", |keys| read_acl(&mut self.acl, keys));
        keys.section("tls", |keys| self.tls.read(keys));
    }

    /// Whether brokers would see one and the same client behind both. Without an instance, each has a name that no other has.
    pub(super) fn has_the_client_id_of(&self, other: &Self) -> bool {
        let (NameServers::Addresses(mine), NameServers::Addresses(theirs)) =
            (&self.name_servers, &other.name_servers)
        else {
            return false;
        };
        let (client, others) = (&self.client, &other.client);
        client.instance.is_some()
            && (&client.instance, &client.unit) == (&others.instance, &others.unit)
            && mine.iter().any(|address| theirs.contains(address))
    }
}

/// The name servers of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum NameServers {
    /// A name server and broker in this process, in memory: for development and tests.
    #[default]
    Embedded,
    /// `host:port` each, IPv6 addresses in brackets; never empty when read or parsed.
    Addresses(Vec<String>),
}

impl NameServers {
    /// Checks addresses made by hand; those that were parsed pass.
    ///
    /// # Errors
    ///
    /// The first address that nobody could dial, and why.
    pub fn check(&self) -> Result<(), ValueError> {
        match self {
            Self::Embedded => Ok(()),
            Self::Addresses(addresses) if addresses.is_empty() => Err(ValueError::new("there is no address")),
            Self::Addresses(addresses) => addresses.iter().try_for_each(|address| check_address(address)),
        }
    }

    fn parse_all<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, ValueError> {
        let addresses = texts.into_iter().flat_map(|text| text.split(';')).map(str::trim);
        let addresses: Vec<&str> = addresses.filter(|address| !address.is_empty()).collect();
        match addresses.as_slice() {
            [] => Err(ValueError::new("there is no address in it")),
            ["embedded"] => Ok(Self::Embedded),
            several if several.contains(&"embedded") => {
                Err(ValueError::new("`embedded` cannot stand beside addresses"))
            }
            _ => {
                addresses.iter().try_for_each(|address| check_address(address))?;
                Ok(Self::Addresses(addresses.into_iter().map(str::to_owned).collect()))
            }
        }
    }
}

/// One address, several separated by `;`, or `embedded`.
impl FromStr for NameServers {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::parse_all([text])
    }
}

impl fmt::Display for NameServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => write!(f, "embedded"),
            Self::Addresses(addresses) => write!(f, "{}", addresses.join(";")),
        }
    }
}

impl Value for NameServers {
    const TAKES_LIST: bool = true;

    fn expected() -> String {
        "`host:port`, several separated by `;` or as a list, or `embedded`".to_owned()
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        const ADDRESS: &str = r"\s*([^\s:;\[\]]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}\s*";
        let several = format!("^({ADDRESS};?)+$");
        json!({ "anyOf": [
            { "const": "embedded" },
            { "type": "string", "pattern": several, "examples": ["127.0.0.1:9876"] },
            { "type": "array", "minItems": 1, "items": { "type": "string", "pattern": r"[:;]|\$\{|^embedded$" } },
        ] })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        let parsed = match (raw, raw.bracketed()) {
            (Raw::List(list), _) => Self::parse_all(list.iter().map(|scalar| scalar.text.as_str())),
            (_, Some(texts)) => Self::parse_all(texts),
            _ => raw.text().ok_or(None)?.parse(),
        };
        parsed.map_err(|error| Some(error.to_string()))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

fn check_address(address: &str) -> Result<(), ValueError> {
    let wrong = |why: &str| Err(ValueError::new(format!("`{address}`: {why}")));
    if let Some((scheme, rest)) = address.split_once("://") {
        return wrong(&format!("leave `{scheme}://` out: `{rest}`"));
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return wrong("the port is missing; a name server listens on 9876 unless told otherwise");
    };
    if port.parse::<u16>().is_ok_and(|port| port == 0) || port.parse::<u16>().is_err() {
        return wrong("the port must be a number from 1 to 65535");
    }
    if let Some(ip) = host.strip_prefix('[') {
        return match ip.strip_suffix(']').map(str::parse::<Ipv6Addr>) {
            Some(Ok(_)) => Ok(()),
            _ => wrong("there is no IPv6 address in the brackets"),
        };
    }
    if host.contains(':') {
        return wrong("write an IPv6 address in brackets: `[::1]:9876`");
    }
    if host.is_empty() || !host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_')) {
        return wrong("this is no host name");
    }
    Ok(())
}

settings! {
/// Credentials that requests are signed with (the brokers' ACL).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AclConfig {
    /// Names the account; sent with each request.
    pub access_key: String,
    /// Signs each request; never sent.
    pub secret_key: Secret,
    /// A token of temporary credentials, where the provider hands them out; default: none.
    pub security_token: Option<Secret>,
}
}

impl AclConfig {
    /// Lasting credentials, without a token.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<Secret>) -> Self {
        Self { access_key: access_key.into(), secret_key: secret_key.into(), security_token: None }
    }
}

/// A section whose keys are all `null` is as good as none: `access_key: ${RMQ_AK:}` signs only where set.
fn read_acl(acl: &mut Option<AclConfig>, keys: &mut Section<'_, '_>) {
    keys.document(AclConfig::FIELDS);
    let (mut access_key, mut secret_key, mut security_token) = match acl.take() {
        Some(acl) => (Some(acl.access_key), Some(acl.secret_key), acl.security_token),
        None => (None, None, None),
    };
    keys.value("access_key", &mut access_key);
    keys.value("secret_key", &mut secret_key);
    keys.value("security_token", &mut security_token);
    match (access_key, secret_key) {
        (Some(access_key), Some(secret_key)) => {
            *acl = Some(AclConfig { access_key, secret_key, security_token });
        }
        _ if !keys.is_clean() => {}
        (None, None) if security_token.is_none() => {}
        (None, _) => keys.problem_with("access_key", "is missing; credentials are a pair of keys"),
        (_, None) => keys.problem_with("secret_key", "is missing; credentials are a pair of keys"),
    }
}

settings! {
/// TLS on the connections to name servers and brokers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TlsConfig {
    /// Whether to speak TLS; default `false`.
    pub enabled: bool,
    /// PEM file with the authorities to trust; default: those of the system.
    pub ca: Option<PathBuf>,
    /// PEM file with this client's certificate chain, where servers ask for one; needs `key`.
    pub cert: Option<PathBuf>,
    /// PEM file with the certificate's private key; needs `cert`.
    pub key: Option<PathBuf>,
    /// The name that certificates must carry; default: the host that was dialled. Brokers announce
    /// bare IP addresses, which certificates seldom name.
    pub server_name: Option<String>,
    /// Accept any certificate; default `false`. Encrypts, but does not tell a broker from an impostor.
    pub insecure: bool,
}
}

impl TlsConfig {
    fn read(&mut self, keys: &mut Section<'_, '_>) {
        keys.document(Self::FIELDS);
        keys.value("enabled", &mut self.enabled);
        keys.value("ca", &mut self.ca);
        keys.value("cert", &mut self.cert);
        keys.value("key", &mut self.key);
        keys.value("server_name", &mut self.server_name);
        keys.value("insecure", &mut self.insecure);
        if keys.is_clean() && self.cert.is_some() != self.key.is_some() {
            let missing = if self.cert.is_some() { "key" } else { "cert" };
            keys.problem_with(missing, "is missing; `cert` and `key` belong together");
        }
    }
}

/// Text that is never printed: `Debug`, `Display` and `Serialize` give `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Value for Secret {
    fn expected() -> String {
        "text".to_owned()
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        raw.text().map(Self::from).ok_or(None)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_one_address_several_or_embedded() {
        let addresses = |list: &[&str]| NameServers::Addresses(list.iter().map(|&a| a.to_owned()).collect());
        for (text, servers) in [
            ("embedded", NameServers::Embedded),
            ("127.0.0.1:9876", addresses(&["127.0.0.1:9876"])),
            ("a:9876; b.example:9876;", addresses(&["a:9876", "b.example:9876"])),
            ("[::1]:9876;mq-1_x:1", addresses(&["[::1]:9876", "mq-1_x:1"])),
        ] {
            assert_eq!(text.parse(), Ok(servers), "{text}");
        }
    }

    #[test]
    fn an_address_that_nobody_could_dial_is_refused() {
        for text in [
            "",
            ";",
            "host",
            "host:",
            "host:0",
            "host:65536",
            ":9876",
            "::1:9876",
            "[::1]",
            "[x]:1",
            "a b:1",
            "http://host:9876",
            "embedded;a:1",
        ] {
            assert!(text.parse::<NameServers>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_is_not_printed_by_anything() {
        let mut acl = AclConfig::new("AK", "hunter2");
        acl.security_token = Some("hunter2".into());
        let json = serde_json::to_string(&acl.secret_key).unwrap();
        let printed = format!("{acl:?} {} {json}", acl.secret_key);
        assert!(!printed.contains("hunter2") && printed.contains("AK"), "{printed}");
    }
}
