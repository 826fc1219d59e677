//! Tags: how an expression is taken apart and how a broker hashes one.

/// The tags that `expression` (`a || b`) names; empty for `*` and for nothing at all, which both mean every tag.
///
/// Source: `behaviour.md` section 3.2, `FilterAPI.buildSubscriptionData`.
pub(crate) fn parse(expression: &str) -> Vec<&str> {
    let expression = expression.trim();
    if expression.is_empty() || expression == "*" {
        return Vec::new();
    }
    expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()).collect()
}

/// Java's `String.hashCode`, by which brokers file and filter tags. Source: `protocol.md` section 4.9.
pub(crate) fn hash(tag: &str) -> i32 {
    tag.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_java() {
        for (tag, expected) in [
            ("TagA", 2_598_919),
            ("TagB", 2_598_920),
            ("a", 97),
            ("", 0),
            ("order-created", -392_709_271),
            ("paymentSucceeded", 1_879_414_523),
            ("中文", 646_394),
            ("😀", 1_772_899),
        ] {
            assert_eq!(hash(tag), expected, "{tag}");
        }
    }

    #[test]
    fn an_expression_is_split_at_the_double_bar() {
        for (expression, tags) in
            [("*", &[][..]), ("", &[]), (" a ", &["a"]), ("a||b", &["a", "b"]), ("a || || b ||", &["a", "b"])]
        {
            assert_eq!(parse(expression), tags, "{expression}");
        }
    }
}
