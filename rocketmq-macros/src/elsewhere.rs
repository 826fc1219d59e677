//! What users of other clients look for in the attribute, and where it is here.

/// Words of the Java client and of rocketmq-spring, without `_` and case; and what to write.
const WORDS: [(&[&str], &str); 20] = [
    (&["consumergroup", "groupname", "groupid", "gid"], "that is `group`"),
    (&["topicname"], "that is `topic`"),
    (&["subexpression", "expression"], "that is `tag`"),
    (
        &["selectorexpression", "selectortype", "selector", "filter", "filterexpression"],
        "write `tag = \"a || b\"`, or `sql = \"...\"` for SQL92",
    ),
    (
        &["messagemodel", "broadcasting", "clustering"],
        "clustering is the default, for the other one write the flag `broadcast`",
    ),
    (
        &["consumemode", "ordered", "consumeorderly", "messageorderly"],
        "concurrent is the default, for the other one write the flag `orderly`",
    ),
    (
        &[
            "consumethreadmax",
            "consumethreadmin",
            "consumethreadnumber",
            "consumethreads",
            "threads",
            "workers",
        ],
        "set `concurrency` in rocketmq.yaml, under `groups:`",
    ),
    (&["consumemessagebatchmaxsize", "batchsize"], "set `batch` in rocketmq.yaml, under `groups:`"),
    (&["pullbatchsize"], "set `pull_batch` in rocketmq.yaml, under `groups:`"),
    (
        &["maxreconsumetimes", "maxretries", "retries", "retrytimes"],
        "set `max_reconsume` in rocketmq.yaml, under `groups:`",
    ),
    (&["suspendcurrentqueuetimemillis"], "set `suspend` in rocketmq.yaml, under `groups:`"),
    (&["timeout"], "set `consume_timeout` in rocketmq.yaml, under `groups:`"),
    (
        &["delay", "delaylevel", "delaylevelwhennextconsume"],
        "set `retry_delay` in rocketmq.yaml, under `groups:`",
    ),
    (
        &["pullthresholdforqueue", "pullthresholdsizeforqueue", "consumeconcurrentlymaxspan", "prefetch"],
        "set `flow` in rocketmq.yaml, under `groups:`",
    ),
    (
        &["consumefromwhere", "consumetimestamp", "from", "offset"],
        "set `consume_from` in rocketmq.yaml, under `groups:`",
    ),
    (&["autostartup"], "set `enabled` in rocketmq.yaml, under `groups:`"),
    (
        &["nameserver", "nameservers", "namesrvaddr", "namesrv", "endpoints"],
        "set `name_servers` in rocketmq.yaml; for a second cluster, name it under `clusters:` and write `cluster = \"...\"`",
    ),
    (&["accesskey", "secretkey", "acl"], "set `acl` in rocketmq.yaml"),
    (&["tlsenable", "usetls", "tls"], "set `tls` in rocketmq.yaml"),
    (
        &[
            "enablemsgtrace",
            "customizedtracetopic",
            "trace",
            "namespace",
            "namespacev2",
            "instancename",
            "unitname",
        ],
        "set it in rocketmq.yaml, where each key is explained",
    ),
];

/// Where `name` is found here, if it is a word of another client.
pub(crate) fn elsewhere(name: &str) -> Option<&'static str> {
    let word = name.replace('_', "").to_ascii_lowercase();
    WORDS.iter().find(|(words, _)| words.contains(&word.as_str())).map(|(_, place)| *place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_other_clients_lead_to_ours() {
        for (word, ours) in [
            ("consumerGroup", "group"),
            ("consumer_group", "group"),
            ("consumeThreadMax", "concurrency"),
            ("selectorExpression", "tag"),
            ("messageModel", "broadcast"),
            ("consumeMode", "orderly"),
            ("nameServer", "name_servers"),
        ] {
            assert!(elsewhere(word).is_some_and(|place| place.contains(&format!("`{ours}"))), "{word}");
        }
        assert_eq!(elsewhere("color"), None);
    }
}
