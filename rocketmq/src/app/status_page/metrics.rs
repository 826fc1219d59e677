//! What consumers and producers have done, in the text form that Prometheus reads.
//!
//! Source: the exposition format, version 0.0.4: a family of samples has one `HELP` and one `TYPE` line.

use std::fmt::{self, Write};

use super::super::parts::Parts;
use crate::client::ServiceState;
use crate::consumer::{ConsumeStats, PushConsumer};
use crate::producer::TopicStats;

/// Name, type, help, and how the value is read.
type Family<T> = (&'static str, &'static str, &'static str, fn(&T) -> f64);

/// All families.
pub(super) fn write(parts: &Parts) -> String {
    let mut page = Page(String::new());
    consumers(&mut page, parts);
    consumed(&mut page, parts);
    producers(&mut page, parts);
    page.0
}

fn consumers(page: &mut Page, parts: &Parts) {
    let families: [Family<PushConsumer>; 3] = [
        (
            "rocketmq_consumer_running",
            "gauge",
            "Whether the consumer of the group has been started.",
            |consumer| f64::from(consumer.state() == ServiceState::Running),
        ),
        (
            "rocketmq_consumer_ready",
            "gauge",
            "Whether the group has its routes and knows its queues.",
            |consumer| f64::from(consumer.is_ready()),
        ),
        ("rocketmq_consumer_paused", "gauge", "Whether the application has paused the group.", |consumer| {
            f64::from(consumer.is_suspended())
        }),
    ];
    for (name, kind, help, read) in families {
        page.family(name, kind, help);
        for member in &parts.consumers {
            let labels = [("cluster", member.cluster.as_str()), ("group", &member.group)];
            page.sample(name, &labels, read(&member.consumer));
        }
    }
}

fn consumed(page: &mut Page, parts: &Parts) {
    let stats: Vec<_> = parts
        .consumers
        .iter()
        .flat_map(|member| {
            member.consumer.stats().into_iter().map(move |(topic, stats)| (member, topic, stats))
        })
        .collect();
    let families: [Family<ConsumeStats>; 5] = [
        ("rocketmq_consumer_pulled_total", "counter", "Messages that came and have a listener.", |stats| {
            stats.pulled as f64
        }),
        ("rocketmq_consumer_ok_total", "counter", "Messages that were handled with success.", |stats| {
            stats.ok as f64
        }),
        ("rocketmq_consumer_failed_total", "counter", "Messages whose handling failed.", |stats| {
            stats.failed as f64
        }),
        (
            "rocketmq_consumer_bad_payloads_total",
            "counter",
            "Messages that could not be decoded; they count as failed, too.",
            |stats| stats.bad_payloads as f64,
        ),
        (
            "rocketmq_consumer_call_seconds",
            "gauge",
            "How long a call of a listener took on average, in the last minute.",
            |stats| stats.consume_rt.as_secs_f64(),
        ),
    ];
    for (name, kind, help, read) in families {
        page.family(name, kind, help);
        for (member, topic, stats) in &stats {
            let labels = [("cluster", member.cluster.as_str()), ("group", &member.group), ("topic", topic)];
            page.sample(name, &labels, read(stats));
        }
    }
}

fn producers(page: &mut Page, parts: &Parts) {
    let stats: Vec<_> = parts
        .producers
        .iter()
        .flat_map(|(name, producer)| {
            producer.stats().into_iter().map(move |(topic, stats)| (name, topic, stats))
        })
        .collect();
    let families: [Family<TopicStats>; 6] = [
        ("rocketmq_producer_sent_total", "counter", "Messages that a broker said it has stored.", |stats| {
            stats.sent as f64
        }),
        (
            "rocketmq_producer_oneway_total",
            "counter",
            "Messages sent without waiting for an answer.",
            |stats| stats.oneway as f64,
        ),
        ("rocketmq_producer_failed_total", "counter", "Messages not sent, or not known to be.", |stats| {
            stats.failed as f64
        }),
        ("rocketmq_producer_retries_total", "counter", "Attempts beyond the first.", |stats| {
            stats.retries as f64
        }),
        ("rocketmq_producer_bytes_total", "counter", "Bytes of the bodies that were sent.", |stats| {
            stats.bytes as f64
        }),
        (
            "rocketmq_producer_latency_seconds_total",
            "counter",
            "How long the sends took together; divided by the sent ones, their mean.",
            |stats| stats.latency.as_secs_f64(),
        ),
    ];
    for (name, kind, help, read) in families {
        page.family(name, kind, help);
        for (producer, topic, stats) in &stats {
            page.sample(name, &[("producer", producer), ("topic", topic)], read(stats));
        }
    }
}

/// The page while it is written.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        let labels: Vec<_> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", Escaped(value))).collect();
        self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}

/// The value of a label, as it stands between quotation marks.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_one_line_whatever_its_labels_hold() {
        let mut page = Page(String::new());
        page.family("a_total", "counter", "What a is.");
        page.sample("a_total", &[("topic", "a\"b\\c\nd"), ("group", "g")], 3);
        assert_eq!(
            page.0,
            "# HELP a_total What a is.\n# TYPE a_total counter\na_total{topic=\"a\\\"b\\\\c\\nd\",group=\"g\"} 3\n"
        );
    }
}
