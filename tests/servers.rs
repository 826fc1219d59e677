//! The harness itself: Apache's servers start, answer, fall, get up again and leave nothing behind.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rocketmq_tests::{Apache, JavaProgram, ServerKind, Setup, Version, servers};
use tokio::runtime::Runtime;

/// The releases that can be had on this machine.
fn releases() -> Result<Vec<Version>> {
    let release = |server| match server {
        ServerKind::Apache(version) => Some(version),
        _ => None,
    };
    Ok(servers()?.into_iter().filter_map(release).collect())
}

fn is_listening(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).is_ok()
}

#[tokio::test]
async fn a_shared_server_routes_new_topics_and_mqadmin_lists_its_broker() -> Result<()> {
    for version in releases()? {
        let server = Apache::shared(version).await?;
        let route = server.admin(&["topicRoute", "-t", "TBW102"]).await?;
        assert!(route.contains(&server.broker_addr().to_string()), "{version}: {route}");
        let cluster = server.admin(&["clusterList"]).await?;
        assert!(cluster.contains("broker-a"), "{version}: {cluster}");
    }
    Ok(())
}

#[test]
fn a_shared_server_outlives_the_runtime_that_started_it() -> Result<()> {
    for version in releases()? {
        let first = Runtime::new()?.block_on(Apache::shared(version))?;
        let second = Runtime::new()?.block_on(Apache::shared(version))?;
        assert!(std::ptr::eq(first, second));
        assert!(is_listening(first.broker_addr()));
    }
    Ok(())
}

/// Who uses Java's client has a supervisor for that.
#[tokio::test]
async fn a_java_program_whose_client_does_not_start_is_started_again() -> Result<()> {
    const SOURCE: &str = include_str!("harness/java/Strategies.java");
    for version in releases()? {
        let nobody = ["room", "127.0.0.1:1", "topic", "east"];
        let mut java = JavaProgram::start(version, "Strategies", SOURCE, &nobody).await?;
        let error = java.lines("owns", 1).await.unwrap_err().to_string();
        assert_eq!(error.matches("Exception in thread \"main\"").count(), 3, "{version}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_admin_command_is_an_error() -> Result<()> {
    for version in releases()? {
        let server = Apache::shared(version).await?;
        let error = server.admin(&["topicRoute", "-t", "no_such_topic"]).await.unwrap_err();
        assert!(error.to_string().contains("no_such_topic"), "{version}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_broker_comes_back_with_its_store_its_settings_and_its_port() -> Result<()> {
    for version in releases()? {
        let setup = Setup::new(version).broker("brokerClusterName", "Elsewhere");
        let mut server = setup.start().await?;
        let broker = server.broker_addr();
        server.create_topic("kept", 3).await?;

        server.kill_broker().await?;
        assert!(!is_listening(broker), "{version}: killed, and still there");
        server.restart_broker().await?;

        assert_eq!(server.broker_addr(), broker);
        let route = server.admin(&["topicRoute", "-t", "kept"]).await?;
        assert!(route.contains(&broker.to_string()) && route.contains("Elsewhere"), "{version}: {route}");
        server.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_new_name_server_learns_of_its_brokers_again() -> Result<()> {
    for version in releases()? {
        let mut server = Apache::start(version).await?;
        let mut second = server.add_broker("broker-b").await?;
        let name_server: SocketAddr = server.name_server().parse()?;

        server.kill_name_server().await?;
        assert!(!is_listening(name_server) && is_listening(server.broker_addr()));
        server.restart_name_server().await?;
        second.await_registered().await?;

        let cluster = server.admin(&["clusterList"]).await?;
        assert!(cluster.contains("broker-a") && cluster.contains("broker-b"), "{version}: {cluster}");
        second.stop().await?;
        server.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_shut_down_leaves_the_name_server() -> Result<()> {
    // Any release will do, and 4.9.7 takes three seconds, 5.5.0 eighteen.
    let Some(version) = releases()?.pop() else { return Ok(()) };
    let mut server = Apache::start(version).await?;
    server.shut_down_broker().await?;
    assert!(!is_listening(server.broker_addr()));
    assert!(server.admin(&["topicRoute", "-t", "TBW102"]).await.is_err());
    server.stop().await
}

/// Set for the process that `java_dies_with_a_killed_test_process` starts and kills.
const VICTIM: &str = "ROCKETMQ_HARNESS_VICTIM";

#[test]
fn java_dies_with_a_killed_test_process() -> Result<()> {
    let Some(version) = releases()?.pop() else { return Ok(()) };
    let mut process = Command::new(env::current_exe()?)
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, version.as_str())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(process.stdout.take().context("no output")?);
    let mut lines = output.lines().map_while(Result::ok);
    let addrs = lines.find_map(|line| line.split_once("serving ").map(|(_, addrs)| addrs.to_owned()));
    let addrs: Vec<SocketAddr> = addrs
        .context("the victim did not start a server")?
        .split(' ')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    assert!(addrs.iter().copied().all(is_listening));

    process.kill()?; // SIGKILL: nothing in that process can react to it.
    process.wait()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while addrs.iter().copied().any(is_listening) {
        ensure!(Instant::now() < deadline, "{addrs:?} are still served");
        thread::yield_now();
    }
    Ok(())
}

/// Not a test: what the test above runs in a process of its own.
#[test]
fn victim() -> Result<()> {
    let Ok(version) = env::var(VICTIM) else { return Ok(()) };
    let server = Runtime::new()?.block_on(Apache::shared(version.parse()?))?;
    println!("serving {} {}", server.name_server(), server.broker_addr());
    loop {
        thread::park();
    }
}
