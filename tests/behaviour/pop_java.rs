//! Members of this library and of Java in the same groups, to which brokers hand out messages one by one.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rocketmq::MessageExt;
use rocketmq_tests::{JavaProgram, can_run};

use crate::pop::{COMES_AGAIN, INVISIBLE_TIME, consume, pop_config};
use crate::program::Program;
use crate::seen::Seen;
use crate::sending::{Stream, send};
use crate::server::{Server, unique};
use crate::wait;

on_all_servers_of_5_at_once! { Shared:
    java_and_this_library_share_the_messages_of_a_group_and_answer_for_each_other,
}

const SOURCE: &str = include_str!("../harness/java/PopMember.java");
/// So long that nothing comes again because a machine is busy.
const LONG: Duration = Duration::from_secs(300);

/// What the Java member says of the messages of a group: that it has begun with them, or done with them.
async fn by_java(java: &mut JavaProgram, group: &str, word: &str) -> Result<Vec<String>> {
    java.lines(&format!("{group} {word} "), 0).await
}

async fn java_and_this_library_share_the_messages_of_a_group_and_answer_for_each_other(
    server: Server,
) -> Result<()> {
    if server.is_embedded() && !can_run(server.version())? {
        return Ok(());
    }
    // Each is the name of a topic as well.
    let (steady, dying) = (unique("steady"), unique("dying"));
    for topic in [&steady, &dying] {
        server.create_topic(topic, 4).await?;
    }
    let (sender, producer) = server.producer().await?;
    let (by_steady, by_victim) = (Seen::default(), Seen::default());
    let mut config = pop_config();
    config.pop.invisible_time = LONG;
    let steady_member = consume(&server, &steady, &steady, config, by_steady.listener()).await?;
    let pause = Duration::from_millis(500);
    let victim = Program::start_popping(&server, &dying, &dying, pause, INVISIBLE_TIME, &by_victim)?;
    // Members of Java only follow.
    for group in [&steady, &dying] {
        wait::until(&format!("the broker knows the mode of {group}"), async || {
            let members = server.admin().members(group).await?;
            let Some(member) = members.first() else { return Ok(false) };
            Ok(server.admin().mode(group, member, group).await? == "POP")
        })
        .await?;
    }
    let (name_server, long, short) =
        (server.name_server(), LONG.as_millis().to_string(), INVISIBLE_TIME.as_millis().to_string());
    let arguments = [name_server.as_str(), &steady, &long, &dying, &short];
    let mut java = JavaProgram::start(server.version(), "PopMember", SOURCE, &arguments).await?;
    java.lines("started", 1).await?;

    // All are well: each message is handled by one of them, once.
    let stream = Stream::start(producer.clone(), &steady, Duration::from_millis(2));
    wait::until_within(COMES_AGAIN, "both have their share", async || {
        Ok(50 < by_java(&mut java, &steady, "done").await?.len() && 50 < by_steady.count())
    })
    .await?;
    let sent = stream.stop().await;
    let mut handled = Vec::new();
    wait::until("all is handled", async || {
        handled = by_java(&mut java, &steady, "done").await?;
        handled.extend(by_steady.messages().iter().map(|message| message.body_str().into_owned()));
        // The last one may have been stored without the sender having heard of it.
        Ok(sent.iter().all(|body| handled.contains(body)))
    })
    .await?;
    let different: BTreeSet<_> = handled.iter().collect();
    ensure!(different.len() == handled.len(), "{} of {} came twice", different.len(), handled.len());

    // Ours is killed in the middle of its work: Java's gets what it had.
    let stream = Stream::start(producer.clone(), &dying, Duration::from_millis(2));
    wait::until_within(COMES_AGAIN, "both have their share", async || {
        Ok(50 < by_java(&mut java, &dying, "done").await?.len() && 50 < by_victim.count())
    })
    .await?;
    let taken_along = victim.kill_at_work(&by_victim).await?;
    let sent = stream.stop().await;
    wait::until_within(COMES_AGAIN, "Java has handled what was left", async || {
        let by_java: BTreeSet<_> = by_java(&mut java, &dying, "done").await?.into_iter().collect();
        let by_victim = by_victim.bodies();
        let is_done = |body: &String| by_java.contains(body) || by_victim.contains(body);
        Ok(taken_along.is_subset(&by_java) && sent.iter().all(is_done))
    })
    .await?;

    // Java's is killed with messages in its hands: ours gets them, and not before their time.
    let by_heir = Seen::default();
    let heir = consume(&server, &dying, &dying, pop_config(), by_heir.listener()).await?;
    let mut held = BTreeSet::new();
    let mut sent = BTreeSet::new();
    wait::until_within(COMES_AGAIN, "Java holds some", async || {
        let bodies = (0..20).map(|number| format!("hold {} {number}", sent.len()));
        sent.extend(send(&producer, &dying, bodies).await?);
        held = by_java(&mut java, &dying, "begin hold").await?.into_iter().collect();
        Ok(3 < held.len())
    })
    .await?;
    java.stop().await?;
    by_heir
        .until_within(COMES_AGAIN, "the heir has handled all", |handled| {
            sent.iter().all(|body| handled.times.contains_key(body))
        })
        .await?;
    let messages = by_heir.messages();
    for number in held {
        let body = format!("hold {number}");
        let of_java = |message: &&MessageExt| message.body_str() == body;
        let again = messages.iter().find(of_java).with_context(|| format!("{body} went down with Java"))?;
        ensure!(0 < again.reconsume_times() && again.topic() == dying, "{again:?}");
    }
    heir.shutdown().await?;
    steady_member.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}
