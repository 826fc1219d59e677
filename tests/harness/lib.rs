//! Servers for the tests: the embedded one, and Apache RocketMQ from Maven Central.
//!
//! A behaviour is written once and run on each of [`servers`]. A test that only sends and receives
//! takes [`Apache::shared`], one running server for the whole test binary; a test that kills things
//! takes its own with [`Apache::start`], because only an owner can.
//!
//! ```text
//! ROCKETMQ_TEST_SERVERS   embedded,5.5.0,4.9.7   which servers to test on; unset: all there are
//! JAVA_HOME, PATH         where `java` and `mvn` are; without them Apache's half is skipped
//! CI                      set: nothing may be skipped
//! ```
mod admin;
mod apache;

pub use admin::Admin;
pub use apache::{
    Apache, Availability, Broker, JavaProgram, ServerKind, Setup, Version, can_run, mqadmin, servers,
};
