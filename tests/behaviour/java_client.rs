//! Apache's own Java client against each server: a program of it sees the same everywhere.

use anyhow::{Context, Result};
use rocketmq_tests::{JavaProgram, can_run};

use crate::server::{Server, unique};

on_each_server! { Shared:
    what_users_of_java_do_has_the_same_results_everywhere,
}

const SOURCE: &str = include_str!("../harness/java/Client.java");

/// What the program prints, of each of its commands.
const EXPECTED: [(&str, &str); 6] = [
    (
        "send",
        "one SEND_OK 0 0\n\
         selected SEND_OK 0 1\n\
         batch of 3 SEND_OK 0 2\n\
         asynchronous SEND_OK 0 5\n\
         large SEND_OK 0 6\n\
         other SEND_OK 0 7\n\
         viewed of another tag\n\
         delayed SEND_OK\n\
         got asynchronous 12 tag key of a Java 0 true\n\
         got delayed 7 tag key of d Java 0 true\n\
         got first 5 tag key of f Java 0 true\n\
         got large large large la 12000 tag key of l Java 0 true\n\
         got one 3 tag key of o Java 0 true\n\
         got one way 7 tag key of o Java 0 true\n\
         got second 6 tag key of s Java 0 true\n\
         got selected 8 tag key of s Java 0 true\n\
         got third 5 tag key of t Java 0 true",
    ),
    (
        "retry",
        "fails 0 true true tag Java\n\
         fails 1 true true tag Java\n\
         fails 2 true true tag Java\n\
         fails once 0 true true tag Java\n\
         fails once 1 true true tag Java\n\
         good 0 true true tag Java\n\
         null once 0 true true tag Java\n\
         null once 1 true true tag Java\n\
         throws once 0 true true tag Java\n\
         throws once 1 true true tag Java\n\
         dead letter fails tag Java true",
    ),
    (
        "order",
        "0 0\n\
         1 0\n\
         1 1\n\
         2 0\n\
         3 0\n\
         3 1\n\
         3 2\n\
         4 0\n\
         dead letter 3 tag Java true",
    ),
    (
        "broadcast",
        "first 0\n\
         first 1\n\
         first 2\n\
         first 3\n\
         second 0\n\
         second 1\n\
         second 2\n\
         second 3",
    ),
    (
        "transaction",
        "sent at once SEND_OK\n\
         sent never SEND_OK\n\
         sent later SEND_OK\n\
         sent not later SEND_OK\n\
         checked later tag true\n\
         checked not later tag true\n\
         got at once tag Java\n\
         got later tag Java",
    ),
    (
        "pull",
        "assigned 0 1 2 3 4 5 6 7\n\
         from 5 5 6 7\n\
         from the beginning 0 1 2 3 4 5 6 7\n\
         committed 8\n\
         offset of the first time 0\n\
         subscribed 0 1 2 3 4 5 6 7\n\
         some FOUND next 5 of 0 to 8 2 3 4\n\
         the end NO_NEW_MSG next 8 of 0 to 8\n\
         beyond OFFSET_ILLEGAL next 8 of 0 to 8\n\
         other tags NO_MATCHED_MSG next 8 of 0 to 8\n\
         one tag FOUND next 3 of 0 to 8 0 1 2\n\
         from 0 to 8 with 0 true\n\
         stored 6",
    ),
];

async fn what_users_of_java_do_has_the_same_results_everywhere(server: Server) -> Result<()> {
    if server.is_embedded() && !can_run(server.version())? {
        return Ok(());
    }
    let (prefix, name_server) = (unique("java"), server.name_server());
    let mut arguments = vec![name_server.as_str(), &prefix];
    for (command, _) in EXPECTED {
        server.create_topic(&format!("{prefix}-{command}"), 1).await?;
        arguments.push(command);
    }
    let mut program = JavaProgram::start(server.version(), "Client", SOURCE, &arguments).await?;
    for (command, expected) in EXPECTED {
        program.lines(&format!("{command} done"), 1).await.context(command)?;
        let printed = program.lines(&format!("{command} "), 0).await?;
        let expected: Vec<_> = expected.lines().chain(["done"]).collect();
        assert_eq!(printed, expected, "{command}");
    }
    program.stop().await
}
