use std::collections::BTreeMap;
use std::process::Command;

use anyhow::Result;

use super::Version;
use super::jars::Jars;
use super::run_dir::RunDir;

/// One of the programs of a release. The names are those of their logging configurations.
#[derive(Debug, Clone, Copy)]
pub(super) enum Program {
    NameServer,
    Broker,
    Admin,
}

impl Program {
    /// A command line that keeps all files of the program in `home`, where it also writes
    /// `server.log`, with these system properties; the program's own arguments come after.
    pub(super) fn command(
        self,
        jars: &Jars,
        home: &RunDir,
        properties: &BTreeMap<String, String>,
    ) -> Result<Command> {
        let (name, max_heap, main_class) = match self {
            Self::NameServer => ("namesrv", "-Xmx128m", "org.apache.rocketmq.namesrv.NamesrvStartup"),
            Self::Broker => ("broker", "-Xmx512m", "org.apache.rocketmq.broker.BrokerStartup"),
            Self::Admin => ("tools", "-Xmx128m", "org.apache.rocketmq.tools.command.MQAdminStartup"),
        };
        // 4.9 looks for this file by its name and does not start without it; 5.x has to be told.
        let logback = home.write_conf(&format!("logback_{name}.xml"), &logback(jars.version))?;
        let mut command = Command::new(&jars.java);
        command.args(FLAGS).arg("-Xms64m").arg(max_heap);
        for package in OPENED {
            command.args(["--add-opens", &format!("java.base/{package}=ALL-UNNAMED")]);
        }
        command.arg(format!("-Drmq.logback.configurationFile={}", logback.display()));
        command.arg(format!("-Duser.home={}", home.path().display()));
        command.args(properties.iter().map(|(key, value)| format!("-D{key}={value}")));
        command.arg("-cp").arg(format!("{}/*", jars.folder.display())).arg(main_class);
        // A name server in the environment would win over the one in our files.
        command.env("ROCKETMQ_HOME", home.path()).env_remove("NAMESRV_ADDR");
        Ok(command)
    }
}

/// What makes a short life cheap: the quick compiler, the small collector, and no file in `/tmp` that
/// a killed process leaves behind. For 5.5.0 that saves a quarter of the memory.
pub(super) const FLAGS: [&str; 4] =
    ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:MaxDirectMemorySize=512m"];

/// The parts of the JDK that RocketMQ reaches into, shut since Java 16.
const OPENED: [&str; 4] = ["java.nio", "sun.nio.ch", "jdk.internal.ref", "java.lang"];

/// Warnings to standard error, where the harness looks for the reason of a failed start; all there
/// is to know to `server.log`, where a human looks for that of a failed test.
fn logback(version: Version) -> String {
    let package = match version {
        Version::V5_5_0 => "org.apache.rocketmq.logging.ch.qos.logback",
        Version::V4_9_7 => "ch.qos.logback",
    };
    format!(
        r#"<configuration>
  <appender name="ERR" class="{package}.core.ConsoleAppender">
    <target>System.err</target>
    <filter class="{package}.classic.filter.ThresholdFilter"><level>WARN</level></filter>
    <encoder><pattern>%d %p %logger{{0}} %m%n</pattern></encoder>
  </appender>
  <appender name="FILE" class="{package}.core.FileAppender">
    <file>${{user.home}}/server.log</file>
    <encoder><pattern>%d %p %t %logger{{0}} %m%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="ERR"/><appender-ref ref="FILE"/></root>
</configuration>
"#
    )
}
