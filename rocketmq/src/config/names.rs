//! The rules for names that brokers and clients share.
//!
//! Source: `Validators` and `TopicValidator`, Java client 5.3.

use super::value::ValueError;

/// The longest name of a group, in characters.
pub const MAX_GROUP_LENGTH: usize = 120;
/// The longest name of a topic, in characters.
pub const MAX_TOPIC_LENGTH: usize = 127;

/// Checks the name of a consumer or producer group: 1 to 120 of `a-z A-Z 0-9 _ - % |`.
///
/// # Errors
///
/// What is wrong with it. `DEFAULT_CONSUMER` and `DEFAULT_PRODUCER` are refused as Java refuses them:
/// every program that forgets to choose a name would be in one group.
pub fn check_group(name: &str) -> Result<(), ValueError> {
    check("group", name, MAX_GROUP_LENGTH)?;
    match name {
        "DEFAULT_CONSUMER" | "DEFAULT_PRODUCER" => Err(ValueError::new(format!(
            "`{name}` is reserved; choose a group name that belongs to this application"
        ))),
        _ => Ok(()),
    }
}

/// Checks the name of a topic: 1 to 127 of `a-z A-Z 0-9 _ - % |`.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_topic(name: &str) -> Result<(), ValueError> {
    check("topic", name, MAX_TOPIC_LENGTH)
}

fn check(what: &str, name: &str, longest: usize) -> Result<(), ValueError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '%' | '|' | '_' | '-');
    let length = name.chars().count();
    if name.is_empty() {
        Err(ValueError::new(format!("a {what} name must not be empty")))
    } else if let Some(wrong) = name.chars().find(|c| !allowed(*c)) {
        Err(ValueError::new(format!("{wrong:?} cannot be in a {what} name; it may hold a-z A-Z 0-9 _ - % |")))
    } else if longest < length {
        Err(ValueError::new(format!("a {what} name has at most {longest} characters, this one has {length}")))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_the_java_client() {
        for name in ["testGroup", "%RETRY%orders", "a|b_c-9", &"g".repeat(120)] {
            assert_eq!(check_group(name), Ok(()), "{name}");
        }
        for name in ["", "a b", "naïve", "a.b", "DEFAULT_CONSUMER", "DEFAULT_PRODUCER", &"g".repeat(121)] {
            assert!(check_group(name).is_err(), "{name}");
        }
        assert_eq!(check_topic(&"t".repeat(127)), Ok(()));
        assert!(check_topic(&"t".repeat(128)).is_err());
    }
}
