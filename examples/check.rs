//! cargo run --example check -- rocketmq.yaml
//!
//! Checks a configuration without a network: prints every key with the value in force and who set it, secrets hidden, or
//! everything that is wrong. ROCKETMQ_PROFILE and ROCKETMQ__… variables count, as when a program runs.
//! `--schema` prints the schema for editors.
//!
//! What only your own program knows, its listeners, `rocketmq::check("rocketmq.yaml")` in a test of it checks as well.

use std::path::Path;
use std::process::ExitCode;

use rocketmq::Config;
use rocketmq::config::ConfigErrors;

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("--schema") {
        print!("{}", rocketmq::config::schema());
        return ExitCode::SUCCESS;
    }
    match effective(argument.as_deref().map(Path::new)) {
        Ok(lines) => {
            println!("{}", lines.join("\n"));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::FAILURE
        }
    }
}

/// The configuration in force, in columns.
fn effective(file: Option<&Path>) -> Result<Vec<String>, ConfigErrors> {
    let loaded = Config::load(file)?;
    let values = loaded.effective();
    let width = |longest: usize, text: &str| longest.max(text.chars().count());
    let keys = values.iter().map(|value| value.key.as_str()).fold(0, width);
    let texts = values.iter().map(|value| value.value.as_str()).filter(|text| text.len() < 40).fold(0, width);
    let line = |value: &rocketmq::config::EffectiveValue| {
        format!("{:keys$}  {:texts$}  {}", value.key, value.value, value.source)
    };
    Ok(values.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_examples_is_in_force_as_it_is_written() {
        let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../rocketmq.yaml"));
        let lines = effective(Some(file)).expect("it is valid");
        let line =
            lines.iter().find(|line| line.starts_with("client.request_timeout")).expect("it has this key");
        assert!(line.contains(" 3s ") && line.contains("rocketmq.yaml:"), "{line}");
    }

    #[test]
    fn a_missing_file_is_told() {
        let problems = effective(Some(Path::new("no-such.yaml"))).expect_err("there is none").to_string();
        assert!(problems.contains("no-such.yaml") && problems.contains("ROCKETMQ_CONFIG"), "{problems}");
    }
}
