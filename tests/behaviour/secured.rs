//! Servers that ask who one is (ACL), and that are reached through TLS: Apache's, since the embedded one is for tests.
//!
//! One server of each release asks for both: for signatures on every connection, and on those with TLS for a certificate.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rocketmq::client::MqClientManager;
use rocketmq::config::{AclConfig, ClusterConfig, SerializeType, TlsConfig};
use rocketmq::{Message, Producer, PushConsumer, RpcHook, RpcRequest, SendError};
use rocketmq_tests::{Apache, ServerKind, Setup, Version, servers};
use sha1::Sha1;

use crate::log;
use crate::seen::Seen;
use crate::sending::send_numbers;
use crate::server::{block_on, cluster, consumer_config, producer_config, unique};

const USER: &str = "rust-client";
const PASSWORD: &str = "12345678";

/// Runs a case on each of Apache's releases, at the same time.
fn on_each_release(case: impl AsyncFn(&'static Apache) -> Result<()>) -> Result<()> {
    let releases = servers()?.into_iter().filter_map(|kind| match kind {
        ServerKind::Apache(version) => Some(version),
        _ => None,
    });
    block_on(async {
        for version in releases {
            let server = secured(version).shared().await?;
            case(server).await.with_context(|| format!("on {version}"))?;
        }
        Ok(())
    })
}

/// A server with one user, and a certificate of the authority in [`Files`].
fn secured(version: Version) -> Setup {
    let setup = Setup::new(version).property("tls.config.file", FILES.tls.display().to_string());
    let account = format!("{{\"username\":\"{USER}\",\"password\":\"{PASSWORD}\"}}");
    let inner = format!("{{\"accessKey\":\"{USER}\",\"secretKey\":\"{PASSWORD}\"}}");
    let package = "org.apache.rocketmq.auth";
    match version {
        Version::V4_9_7 => setup.broker("aclEnable", "true").file(
            "plain_acl.yml",
            format!("accounts:\n- accessKey: {USER}\n  secretKey: {PASSWORD}\n  admin: true\n"),
        ),
        _ => setup
            .broker("authenticationEnabled", "true")
            .broker(
                "authenticationProvider",
                &format!("{package}.authentication.provider.DefaultAuthenticationProvider"),
            )
            .broker(
                "authenticationMetadataProvider",
                &format!("{package}.authentication.provider.LocalAuthenticationMetadataProvider"),
            )
            .broker("initAuthenticationUser", &account)
            .broker("innerClientAuthenticationCredentials", &inner)
            .broker("authorizationEnabled", "true")
            .broker(
                "authorizationProvider",
                &format!("{package}.authorization.provider.DefaultAuthorizationProvider"),
            )
            .broker(
                "authorizationMetadataProvider",
                &format!("{package}.authorization.provider.LocalAuthorizationMetadataProvider"),
            ),
    }
}

/// An authority, and what it has signed, in PEM.
struct Files {
    ca: PathBuf,
    client: PathBuf,
    client_key: PathBuf,
    /// Of an authority that nobody trusts.
    stranger: PathBuf,
    stranger_key: PathBuf,
    /// What Apache's servers are told of all this.
    tls: PathBuf,
}

static FILES: LazyLock<Files> = LazyLock::new(|| Files::make().expect("certificates can be made anywhere"));

impl Files {
    fn make() -> Result<Self> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("tls"));
        fs::create_dir_all(&folder)?;
        let write = |name: &str, text: String| -> Result<PathBuf> {
            let file = folder.join(name);
            fs::write(&file, text)?;
            Ok(file)
        };
        let ca = authority("the tests' authority")?;
        let (server, server_key) = certificate(&ca, "127.0.0.1")?;
        let (client, client_key) = certificate(&ca, "a client")?;
        let (stranger, stranger_key) = certificate(&authority("somebody else's")?, "a stranger")?;
        let (server, server_key) = (write("server.pem", server)?, write("server.key", server_key)?);
        let ca = write("ca.pem", ca.pem())?;
        let settings = format!(
            "tls.test.mode.enable=false\ntls.server.need.client.auth=require\ntls.server.authClient=true\n\
             tls.server.certPath={}\ntls.server.keyPath={}\ntls.server.trustCertPath={}\n",
            server.display(),
            server_key.display(),
            ca.display(),
        );
        Ok(Self {
            tls: write("tls.properties", settings)?,
            client: write("client.pem", client)?,
            client_key: write("client.key", client_key)?,
            stranger: write("stranger.pem", stranger)?,
            stranger_key: write("stranger.key", stranger_key)?,
            ca,
        })
    }
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A certificate for a name or an address, and its key.
fn certificate(authority: &CertifiedIssuer<'_, KeyPair>, name: &str) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, authority)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// As the one user that there is.
fn as_user(server: &Apache) -> ClusterConfig {
    let mut cluster = cluster(&server.name_server());
    cluster.acl = Some(AclConfig::new(USER, PASSWORD));
    cluster
}

fn tls() -> TlsConfig {
    let mut tls = TlsConfig::default();
    tls.enabled = true;
    tls.ca = Some(FILES.ca.clone());
    tls.cert = Some(FILES.client.clone());
    tls.key = Some(FILES.client_key.clone());
    tls
}

/// Messages go to the server and come back.
async fn ensure_works(cluster: ClusterConfig) -> Result<()> {
    ensure_manager_works(&MqClientManager::new(cluster)).await
}

async fn ensure_manager_works(manager: &MqClientManager) -> Result<()> {
    let (topic, seen) = (unique("secured"), Seen::default());
    let producer = Producer::builder(unique("producer")).config(producer_config()).build(manager)?;
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(manager)?;
    manager.start().await?;
    let sent = send_numbers(&producer, &topic, 20).await?;
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    manager.shutdown().await?;
    Ok(())
}

/// Why a message cannot be sent.
async fn refusal(cluster: ClusterConfig) -> Result<String> {
    let manager = MqClientManager::new(cluster);
    let mut config = producer_config();
    config.retries = 0;
    let producer = Producer::builder(unique("producer")).config(config).build(&manager)?;
    manager.start().await?;
    let error: SendError = producer
        .send(Message::new(unique("secured")).body("x"))
        .await
        .expect_err("the server does not know this client");
    manager.shutdown().await?;
    // As a program that returns it would print it.
    Ok(format!("{:?}", rocketmq::Error::from(error)))
}

#[test]
fn a_client_with_keys_works_whatever_the_form_of_its_headers() -> Result<()> {
    on_each_release(async |server| {
        for form in [SerializeType::Json, SerializeType::Rocketmq] {
            let mut cluster = as_user(server);
            cluster.client.serialize = form;
            ensure_works(cluster).await.with_context(|| format!("{form:?}"))?;
        }
        Ok(())
    })
}

/// Signs as Java's `AclClientRPCHook` does.
struct OwnSignature;

impl RpcHook for OwnSignature {
    fn before(&self, request: &mut RpcRequest<'_>) -> Result<(), String> {
        request.put("AccessKey", USER);
        let mut fields: Vec<_> = request.fields().collect();
        fields.sort_unstable();
        let mut mac = Hmac::<Sha1>::new_from_slice(PASSWORD.as_bytes()).map_err(|error| error.to_string())?;
        fields.iter().for_each(|(_, value)| mac.update(value.as_bytes()));
        mac.update(request.body());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        request.put("Signature", signature);
        Ok(())
    }
}

#[test]
fn an_application_may_sign_by_itself_whatever_the_form_of_its_headers() -> Result<()> {
    on_each_release(async |server| {
        for form in [SerializeType::Json, SerializeType::Rocketmq] {
            let mut cluster = as_user(server);
            (cluster.acl, cluster.client.serialize) = (None, form);
            let manager = MqClientManager::new(cluster);
            manager.register_rpc_hook(OwnSignature)?;
            ensure_manager_works(&manager).await.with_context(|| format!("{form:?}"))?;
        }
        Ok(())
    })
}

#[test]
fn a_client_without_the_right_keys_is_told_what_the_broker_says() -> Result<()> {
    on_each_release(async |server| {
        let is_5 = server.version() == Version::V5_5_0;
        let mut cluster = as_user(server);
        cluster.acl = Some(AclConfig::new(USER, "not the password"));
        let error = refusal(cluster.clone()).await?;
        let words = if is_5 { "check signature failed" } else { "Check signature failed" };
        assert!(error.contains(words) && error.contains(&server.broker_addr().to_string()), "{error}");

        // A consumer is told, too, and goes on asking: its keys may be about to be made known.
        let topic = unique("secured");
        let manager = MqClientManager::new(as_user(server));
        let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
        manager.start().await?;
        send_numbers(&producer, &topic, 1).await?;
        manager.shutdown().await?;
        let group = unique("group");
        let manager = MqClientManager::new(cluster);
        PushConsumer::builder(&group).subscribe(topic, "*", Seen::default().listener()).build(&manager)?;
        manager.start().await?;
        log::until_logged(&["WARN", "refuses this client", words, &group]).await?;
        manager.shutdown().await?;

        let mut cluster = as_user(server);
        cluster.acl = None;
        let error = refusal(cluster).await?;
        let words = if is_5 { "username cannot be null" } else { "accessKey" };
        assert!(error.contains(words), "{error}");
        Ok(())
    })
}

#[test]
fn a_client_with_a_certificate_works_through_tls() -> Result<()> {
    on_each_release(async |server| {
        let mut cluster = as_user(server);
        cluster.tls = tls();
        ensure_works(cluster).await
    })
}

#[test]
fn tls_is_refused_with_its_reason_where_either_side_cannot_trust_the_other() -> Result<()> {
    on_each_release(async |server| {
        let mut unknown = tls();
        unknown.ca = Some(FILES.stranger.clone());
        let mut misnamed = tls();
        misnamed.server_name = Some("broker.example".to_owned());
        let mut nobody = tls();
        (nobody.cert, nobody.key) = (None, None);
        let mut stranger = tls();
        stranger.cert = Some(FILES.stranger.clone());
        stranger.key = Some(FILES.stranger_key.clone());
        for (tls, words) in [
            (unknown, "UnknownIssuer"),
            (misnamed, "broker.example"),
            // What a server does not like, it says only by hanging up.
            (nobody, &server.name_server()),
            (stranger, &server.name_server()),
        ] {
            let mut cluster = as_user(server);
            cluster.client.request_timeout = std::time::Duration::from_secs(5);
            cluster.tls = tls;
            let error = refusal(cluster).await?;
            assert!(error.contains(words), "{words}: {error}");
        }
        Ok(())
    })
}
