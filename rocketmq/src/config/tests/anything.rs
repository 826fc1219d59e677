//! Text that nobody means: refused at worst, never a panic, an endless loop or endless memory.

use proptest::prelude::*;

use super::super::load::from_text;
use super::super::*;
use super::{DOCUMENTED, config, load};

#[test]
fn an_alias_stands_for_what_it_names_and_a_bomb_of_them_is_refused() {
    let config = config(
        "acl: &acl { access_key: a, secret_key: b }\nclusters: { dr: { name_servers: d:1, acl: *acl } }",
    );
    assert_eq!(config.clusters["dr"].acl, config.cluster.acl);
    let mut bomb = "a0: &a0 [x, x]\n".to_owned();
    for n in 1..40 {
        bomb.push_str(&format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}]\n", n - 1));
    }
    assert!(load(&bomb, &[]).is_err());
    assert!(load("a: &a [*a]", &[]).is_err());
    assert!(load(&"[".repeat(100_000), &[]).is_err());
    assert!(load(&"${a:".repeat(100_000), &[]).is_err());
    assert!(load(&format!("name_servers: '{}'", "${a:".repeat(100_000)), &[]).is_err());
}

#[test]
fn a_mapping_takes_the_keys_of_others_but_those_that_it_says_itself() {
    let config = config(
        "groups:\n  \
           a: &base { max_reconsume: 3, concurrency: 7, flow: { messages_per_queue: 90 } }\n  \
           b: { batch: 2, <<: *base, concurrency: 8 }\n  \
           c: { <<: [{ max_reconsume: 4 }, *base], flow: { span: 5 } }\n  \
           d: &d { <<: { <<: *base, max_reconsume: 5 } }\n  \
           e: { <<: *d }\n",
    );
    let groups = config.groups.unwrap();
    let of = |name: &str| {
        let ConsumerConfig { max_reconsume, concurrency, batch, flow, .. } = &groups[name];
        (*max_reconsume, *concurrency, *batch, flow.messages_per_queue)
    };
    assert_eq!(of("a"), (Some(3), 7, 1, 90));
    assert_eq!(of("b"), (Some(3), 8, 2, 90));
    let untold = ConsumerConfig::default().flow.messages_per_queue;
    assert_eq!(of("c"), (Some(4), 7, 1, untold), "a key that is there hides the whole of another's");
    assert_eq!(of("d"), (Some(5), 7, 1, 90));
    assert_eq!(of("e"), of("d"));
}

/// Pieces of YAML, so that random text gets past the first character.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "\n",
            "\n  ",
            "\n    ",
            ": ",
            ":",
            "- ",
            "{",
            "}",
            "[",
            "]",
            ", ",
            "\"",
            "'",
            "#",
            "&a ",
            "*a",
            "!!str ",
            "|\n  ",
            ">\n",
            "---\n",
            "...\n",
            "${",
            "}",
            "${HOME}",
            "null",
            "true",
            "5s",
            "4MiB",
            "-1",
            "1e9",
            "<<",
            "name_servers",
            "client",
            "request_timeout",
            "groups",
            "orders",
            "acl",
            "secret_key",
            "vars",
            "defaults",
            "flow",
            "clusters",
            "producers",
            "default",
            "queues",
            "\t",
            "é",
            "\u{0}",
            "\u{feff}",
            "%YAML 1.2\n",
            "? ",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,4}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in yaml_like()) {
        if let Err(errors) = Config::from_yaml(&text) {
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn no_slip_of_the_keyboard_panics(at in 0..DOCUMENTED.len(), gone in 0usize..20, new in yaml_like()) {
        let before: String = DOCUMENTED.chars().take(at).collect();
        let after: String = DOCUMENTED.chars().skip(at + gone).collect();
        drop(Config::from_yaml(&format!("{before}{new}{after}")));
    }

    #[test]
    fn no_environment_panics(keys in "[A-Z_]{0,20}", name in "(GROUPS|VARS|CLIENT|ACL)?(__)?[a-zA-Z_]{0,8}", value in any::<String>()) {
        let variables = [(format!("ROCKETMQ__{keys}"), value.clone()), (format!("ROCKETMQ__{name}"), value)];
        drop(from_text("a", "name_servers: embedded\ngroups: { a: , b: }", variables.into()));
    }

    #[test]
    fn no_placeholder_panics(text in "([$]|[{]|[}]|:|a|b|file|é|[$][{]){0,20}") {
        let loaded = Config::from_yaml("name_servers: embedded\nvars: { a: 1, b: '${a}' }").unwrap();
        drop(loaded.resolve(&text));
    }
}
