//! Broadcast groups: every member gets every message, and keeps its own offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::{ConsumeResult, MessageExt, PushConsumer};
use rocketmq_tests::{JavaProgram, ServerKind, Version, servers};

use crate::log;
use crate::seen::Seen;
use crate::sending::{send, send_numbers};
use crate::server::{Server, consumer_config, unique};
use crate::wait;

on_each_server! { Shared:
    every_member_sees_every_message_and_goes_on_where_it_stopped,
    a_message_whose_handling_fails_is_dropped_and_the_next_ones_come,
    order_holds_for_each_member_also_where_handling_fails,
    offsets_are_shared_with_the_java_client,
    a_damaged_file_gives_way_to_its_backup_which_is_said,
    offsets_that_cannot_be_written_are_said_and_written_once_they_can,
}

/// A folder of a case's own.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("offsets"))
}

/// A member with this name, as a process of its own would have it.
fn manager(server: &Server, folder: &Path, instance: &str) -> MqClientManager {
    let mut cluster = server.cluster();
    cluster.client.offset_dir = folder.to_owned();
    cluster.client.instance = Some(instance.to_owned());
    MqClientManager::new(cluster)
}

async fn member(
    server: &Server,
    folder: &Path,
    instance: &str,
    group: &str,
    topic: &str,
    seen: &Seen,
) -> Result<MqClientManager> {
    let manager = manager(server, folder, instance);
    PushConsumer::builder(group)
        .config(consumer_config())
        .broadcasting()
        .subscribe(topic, "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    Ok(manager)
}

async fn every_member_sees_every_message_and_goes_on_where_it_stopped(server: Server) -> Result<()> {
    let (topic, group, folder) = (unique("news"), unique("group"), folder());
    server.create_topic(&topic, 4).await?;
    let (sender, producer) = server.producer().await?;
    let first = send_numbers(&producer, &topic, 100).await?;
    let (one, other) = (Seen::default(), Seen::default());
    let one_member = member(&server, &folder, "one", &group, &topic, &one).await?;
    let other_member = member(&server, &folder, "other", &group, &topic, &other).await?;
    for seen in [&one, &other] {
        seen.until_all(&first).await?;
        seen.ensure_once()?;
    }
    one_member.shutdown().await?;

    let later = send(&producer, &topic, (0..50).map(|number| format!("later {number}"))).await?;
    let all: BTreeSet<_> = first.union(&later).cloned().collect();
    other.until_all(&all).await?;
    let again = Seen::default();
    let one_member = member(&server, &folder, "one", &group, &topic, &again).await?;
    again.until_all(&later).await?;
    for seen in [&again, &other] {
        seen.ensure_once()?;
    }
    assert_eq!(again.bodies(), later, "what it had before the restart came again");
    assert_eq!(server.committed(&group, &topic, 4).await?, 0, "brokers keep no offsets of such a group");

    // While a member runs, no other one can have its name.
    let error =
        member(&server, &folder, "one", &group, &topic, &again).await.expect_err("it runs").to_string();
    assert!(error.contains("client.instance") && error.contains("offsets.json"), "{error}");
    one_member.shutdown().await?;
    other_member.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_message_whose_handling_fails_is_dropped_and_the_next_ones_come(server: Server) -> Result<()> {
    let (topic, group, folder) = (unique("news"), unique("group"), folder());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let (seen, tries) = (Seen::default(), Arc::new(AtomicU32::new(0)));
    let manager = manager(&server, &folder, "one");
    let (noted, counted) = (seen.clone(), Arc::clone(&tries));
    PushConsumer::builder(&group)
        .config(consumer_config())
        .broadcasting()
        .subscribe(topic.as_str(), "*", move |messages: Vec<MessageExt>| {
            let bad = messages.iter().any(|message| message.body_str() == "bad");
            if bad {
                counted.fetch_add(1, Ordering::Relaxed);
            } else {
                messages.iter().for_each(|message| noted.note(message));
            }
            async move { if bad { Err("no") } else { Ok(()) } }
        })
        .build(&manager)?;
    manager.start().await?;
    send(&producer, &topic, ["bad".to_owned()]).await?;
    log::until_logged(&["a handler failed", "it is dropped", &group]).await?;
    let rest = send_numbers(&producer, &topic, 10).await?;
    seen.until_all(&rest).await?;
    manager.shutdown().await?;
    assert_eq!(tries.load(Ordering::Relaxed), 1);
    assert_eq!(server.dead_letters(&group).await?, 0);
    sender.shutdown().await?;
    Ok(())
}

async fn order_holds_for_each_member_also_where_handling_fails(server: Server) -> Result<()> {
    let (topic, group, folder) = (unique("news"), unique("group"), folder());
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 60).await?;
    let mut members = Vec::new();
    for instance in ["one", "other"] {
        let manager = manager(&server, &folder, instance);
        let seen = Seen::default();
        let (noted, failed) = (seen.clone(), Arc::new(Mutex::new(BTreeSet::new())));
        let mut config = consumer_config();
        config.suspend = Duration::from_millis(10);
        PushConsumer::builder(&group)
            .config(config)
            .orderly()
            .broadcasting()
            .subscribe(topic.as_str(), "*", move |messages: Vec<MessageExt>| {
                let message = &messages[0];
                // Every third one fails at first.
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                let fails = message.queue_offset() % 3 == 0
                    && failed.insert((message.queue_id(), message.queue_offset()));
                if !fails {
                    noted.note(message);
                }
                async move { if fails { ConsumeResult::ReconsumeLater } else { ConsumeResult::Success } }
            })
            .build(&manager)?;
        manager.start().await?;
        members.push((manager, seen));
    }
    for (manager, seen) in members {
        seen.until_all(&sent).await?;
        seen.ensure_once()?;
        let mut queues: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for message in seen.messages() {
            queues.entry(message.queue_id()).or_default().push(message.queue_offset());
        }
        assert!(queues.values().all(|offsets| offsets.is_sorted()), "{queues:?}");
        manager.shutdown().await?;
    }
    sender.shutdown().await?;
    Ok(())
}

/// What one of them has handled the other one goes on from, from the same file.
async fn offsets_are_shared_with_the_java_client(server: Server) -> Result<()> {
    const SOURCE: &str = include_str!("../harness/java/Broadcast.java");
    let version = server.version();
    if !servers()?.contains(&ServerKind::Apache(version)) {
        return Ok(());
    }
    // The class moved with 5.0.
    let source = match version {
        Version::V4_9_7 => SOURCE.to_owned(),
        _ => SOURCE.replace("common.protocol.heartbeat", "remoting.protocol.heartbeat"),
    };
    let (topic, group, folder) = (unique("news"), unique("group"), folder());
    server.create_topic(&topic, 4).await?;
    let (sender, producer) = server.producer().await?;
    let ten = |round: &'static str| (0..10).map(move |number| format!("{round} {number}"));

    let seen = Seen::default();
    let sent = send(&producer, &topic, ten("rust")).await?;
    let manager = member(&server, &folder, "one", &group, &topic, &seen).await?;
    seen.until_all(&sent).await?;
    manager.shutdown().await?;

    // The folder is named after the client: `address@instance`.
    let client = fs::read_dir(&folder)?.next().context("there is a file by now")??.file_name();
    let client = client.to_string_lossy().into_owned();
    let address = client.strip_suffix("@one").context("the folder ends with the instance")?;
    let sent = send(&producer, &topic, ten("java")).await?;
    let (name_server, folder_text) = (server.name_server(), folder.display().to_string());
    let arguments = [&name_server, &topic, &group, &folder_text, address, "one", "10"];
    let mut java = JavaProgram::start(version, "Broadcast", &source, &arguments).await?;
    let got: BTreeSet<_> = java.lines("got: ", 10).await?.into_iter().collect();
    assert_eq!(got, sent);
    java.lines("done", 1).await?;
    java.stop().await?;

    let seen = Seen::default();
    let sent = send(&producer, &topic, ten("rust again")).await?;
    let manager = member(&server, &folder, "one", &group, &topic, &seen).await?;
    seen.until_all(&sent).await?;
    manager.shutdown().await?;
    assert_eq!(seen.bodies(), sent, "what Java had came again");
    sender.shutdown().await?;
    Ok(())
}

async fn a_damaged_file_gives_way_to_its_backup_which_is_said(server: Server) -> Result<()> {
    let (topic, group, folder) = (unique("news"), unique("group"), folder());
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    // What a member has handled that is started and stopped again.
    let run = async |sent: &BTreeSet<String>| -> Result<()> {
        let seen = Seen::default();
        let manager = member(&server, &folder, "one", &group, &topic, &seen).await?;
        seen.until_all(sent).await?;
        manager.shutdown().await?;
        seen.ensure_once()
    };
    run(&send_numbers(&producer, &topic, 10).await?).await?;
    let client = fs::read_dir(&folder)?.next().context("there is a file by now")??.path();
    let (file, backup) =
        (client.join(&group).join("offsets.json"), client.join(&group).join("offsets.json.bak"));
    let whole = fs::read(&file)?;
    let later = send(&producer, &topic, (0..5).map(|number| format!("later {number}"))).await?;
    run(&later).await?;
    // As a power cut may leave it, and with the backup that there was before the later ones.
    fs::write(&file, &whole[..whole.len() / 2])?;
    fs::write(&backup, &whole)?;

    run(&later).await?;

    let path = file.display().to_string();
    log::until_logged(&["WARN", "those of its backup are used", &path]).await?;
    // From then on the file is whole again.
    run(&send(&producer, &topic, ["last"]).await?).await?;
    sender.shutdown().await?;
    Ok(())
}

async fn offsets_that_cannot_be_written_are_said_and_written_once_they_can(server: Server) -> Result<()> {
    let (topic, group, folder, seen) = (unique("news"), unique("group"), folder(), Seen::default());
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let mut sent = send(&producer, &topic, ["first"]).await?;
    let running = member(&server, &folder, "one", &group, &topic, &seen).await?;
    seen.until_all(&sent).await?;
    let client = fs::read_dir(&folder)?.next().context("there is a folder by now")??.path();
    let (file, backup, temporary) = ("offsets.json", "offsets.json.bak", "offsets.json.tmp");
    let [file, backup, temporary] = [file, backup, temporary].map(|name| client.join(&group).join(name));
    wait::until("the first offset is written", async || Ok(file.exists())).await?;

    // Nothing can be written under that name.
    wait::until("the folder is in the way", async || Ok(fs::create_dir(&temporary).is_ok())).await?;
    sent.extend(send(&producer, &topic, ["second", "third"]).await?);
    log::until_logged(&["WARN", "could not be written", &file.display().to_string()]).await?;
    seen.until_all(&sent).await?;
    let before = fs::read(&file)?;
    fs::remove_dir(&temporary)?;
    // Although nothing new comes.
    wait::until("they are written after all", async || Ok(fs::read(&file).is_ok_and(|now| now != before)))
        .await?;
    running.shutdown().await?;

    let again = Seen::default();
    let sent = send(&producer, &topic, ["fourth"]).await?;
    let running = member(&server, &folder, "one", &group, &topic, &again).await?;
    again.until_all(&sent).await?;
    running.shutdown().await?;
    again.ensure_once()?;

    fs::write(&file, "{")?;
    fs::write(&backup, "")?;
    let refused = member(&server, &folder, "one", &group, &topic, &again).await;
    let refused = refused.err().context("both are damaged")?.to_string();
    for part in [&group, &file.display().to_string(), "nor its backup", "delete both"] {
        ensure!(refused.contains(part), "{part} is not in: {refused}");
    }
    sender.shutdown().await?;
    Ok(())
}
