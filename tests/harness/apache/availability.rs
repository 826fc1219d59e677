use std::env;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Once;

use anyhow::{Context, Result, bail};

use super::{Version, jars};

/// A server that a behaviour is tested on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerKind {
    /// The library's own, in this process.
    Embedded,
    /// Apache's, in two of their own.
    Apache(Version),
}

/// The programs on this machine that Apache's servers need.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Availability {
    /// Runs them: `$JAVA_HOME/bin/java`, else the one in `PATH`.
    pub java: Option<PathBuf>,
    /// Fetches them, the first time.
    pub maven: Option<PathBuf>,
}

impl Availability {
    /// Looks for the programs, without running them.
    pub fn detect() -> Self {
        let at_home = env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
        let java = at_home.filter(|java| java.is_file()).or_else(|| find("java"));
        Self { java, maven: find("mvn") }
    }

    /// The programs that are not here and would be needed for this release.
    fn missing(&self, version: Version) -> Vec<&'static str> {
        let java = self.java.is_none().then_some("java");
        let maven = (self.maven.is_none() && !jars::are_resolved(version)).then_some("mvn");
        java.into_iter().chain(maven).collect()
    }
}

/// The servers to test on: those in `ROCKETMQ_TEST_SERVERS`, else all that can be had here. What is left
/// out for want of Java or Maven is said once on standard error, past the test runner's capture.
///
/// # Errors
///
/// A server is asked for by name, or `CI` is set, and a program for it is missing.
pub fn servers() -> Result<Vec<ServerKind>> {
    static SAID: Once = Once::new();
    let wanted = env::var("ROCKETMQ_TEST_SERVERS").ok();
    let found = Availability::detect();
    let choice = Choice::of(wanted.as_deref(), is_ci(), |version| found.missing(version))?;
    if let Some(skipped) = choice.skipped {
        // Not `eprintln!`, which is shown for failed tests only. Nobody reads it? So be it.
        SAID.call_once(|| drop(writeln!(io::stderr(), "{skipped}")));
    }
    Ok(choice.servers)
}

/// Whether Apache's programs of this release can be run, for tests of the embedded server that need one.
///
/// # Errors
///
/// `CI` is set, and something is missing.
pub fn can_run(version: Version) -> Result<bool> {
    let missing = Availability::detect().missing(version);
    if is_ci() && !missing.is_empty() {
        bail!("the tests have to run Apache's tools here, but {} is missing", missing.join(" and "));
    }
    Ok(missing.is_empty())
}

/// What `servers` decided.
#[derive(Debug)]
struct Choice {
    servers: Vec<ServerKind>,
    /// What to tell the user about those left out.
    skipped: Option<String>,
}

impl Choice {
    fn of(wanted: Option<&str>, is_ci: bool, missing: impl Fn(Version) -> Vec<&'static str>) -> Result<Self> {
        let is_required = wanted.is_some() || is_ci;
        let mut choice = Self { servers: Vec::new(), skipped: None };
        for server in wanted.map_or_else(|| Ok(all()), parse)? {
            let missing = match server {
                ServerKind::Apache(version) => missing(version),
                ServerKind::Embedded => Vec::new(),
            };
            if missing.is_empty() {
                choice.servers.push(server);
                continue;
            }
            let missing = missing.join(" and ");
            if is_required {
                bail!("the tests have to run against Apache RocketMQ here, but {missing} is missing");
            }
            choice.skipped = Some(format!(
                "SKIPPED: the tests ran against the embedded server only; {missing} is missing, which the half \
                 against Apache RocketMQ needs"
            ));
        }
        Ok(choice)
    }
}

fn all() -> Vec<ServerKind> {
    let apache = Version::ALL.map(ServerKind::Apache);
    [ServerKind::Embedded].into_iter().chain(apache).collect()
}

fn parse(list: &str) -> Result<Vec<ServerKind>> {
    list.split(',')
        .map(|name| match name.trim() {
            "embedded" => Ok(ServerKind::Embedded),
            version => version.parse().map(ServerKind::Apache),
        })
        .collect::<Result<_>>()
        .context("ROCKETMQ_TEST_SERVERS takes a list such as embedded,5.5.0,4.9.7")
}

fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != OsStr::new("false"))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING_MISSING: fn(Version) -> Vec<&'static str> = |_| Vec::new();
    const NO_JAVA: fn(Version) -> Vec<&'static str> = |_| vec!["java"];

    #[test]
    fn all_servers_are_tested_on_where_java_is() {
        let choice = Choice::of(None, false, NOTHING_MISSING).unwrap();
        assert_eq!(choice.servers, all());
        assert!(choice.skipped.is_none());
    }

    #[test]
    fn without_java_the_skipped_half_is_named() {
        let choice = Choice::of(None, false, NO_JAVA).unwrap();
        assert_eq!(choice.servers, [ServerKind::Embedded]);
        assert!(choice.skipped.unwrap().contains("java is missing"));
    }

    #[test]
    fn nothing_is_skipped_in_ci_or_when_asked_for_by_name() {
        for (wanted, is_ci) in [(None, true), (Some("embedded,5.5.0"), false)] {
            let error = Choice::of(wanted, is_ci, NO_JAVA).unwrap_err().to_string();
            assert!(error.contains("java is missing"), "{error}");
        }
        assert!(Choice::of(Some("embedded"), true, NO_JAVA).is_ok());
    }

    #[test]
    fn a_list_narrows_the_servers_and_a_typing_mistake_is_told() {
        let choice = Choice::of(Some("4.9.7, embedded"), false, NOTHING_MISSING).unwrap();
        assert_eq!(choice.servers, [ServerKind::Apache(Version::V4_9_7), ServerKind::Embedded]);
        let error = Choice::of(Some("5.5"), false, NOTHING_MISSING).unwrap_err();
        assert!(format!("{error:#}").contains("5.5"), "{error:#}");
    }
}
