use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::apache::remoting;

const SEND_MESSAGE: u16 = 10;
const UPDATE_AND_CREATE_TOPIC: u16 = 17;
const QUERY_CONSUMER_OFFSET: u16 = 14;
const UPDATE_CONSUMER_OFFSET: u16 = 15;
const GET_ALL_TOPIC_CONFIG: u16 = 21;
const GET_MAX_OFFSET: u16 = 30;
const GET_MIN_OFFSET: u16 = 31;
const GET_CONSUMER_LIST_BY_GROUP: u16 = 38;
const LOCK_BATCH_MQ: u16 = 41;
const UNLOCK_BATCH_MQ: u16 = 42;
const QUERY_ASSIGNMENT: u16 = 400;
const SET_MESSAGE_REQUEST_MODE: u16 = 401;
const INVOKE_BROKER_TO_RESET_OFFSET: u16 = 222;
const INVOKE_BROKER_TO_GET_CONSUMER_STATUS: u16 = 223;

const SYSTEM_ERROR: i64 = 1;
const TOPIC_NOT_EXIST: i64 = 17;
const QUERY_NOT_FOUND: i64 = 22;

/// What a broker, embedded or Apache's, says when asked from outside: in milliseconds, where `mqadmin` takes seconds.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    broker: SocketAddr,
}

impl Admin {
    /// Asks this broker.
    pub fn new(broker: SocketAddr) -> Self {
        Self { broker }
    }

    /// Creates a topic to read from and write to.
    ///
    /// # Errors
    ///
    /// The broker refused, or did not answer.
    pub async fn create_topic(&self, topic: &str, queues: u32) -> Result<()> {
        let fields = format!(
            r#"{{"topic":"{topic}","defaultTopic":"TBW102","readQueueNums":"{queues}","writeQueueNums":"{queues}",
                "perm":"6","topicFilterType":"SINGLE_TAG","topicSysFlag":"0","order":"false"}}"#
        );
        let answer = remoting::ask(self.broker, UPDATE_AND_CREATE_TOPIC, &fields, "").await?;
        ensure!(answer.code == 0, "the broker did not create {topic}: {}", answer.header);
        Ok(())
    }

    /// Whether the broker knows a topic; slaves learn of one every few seconds.
    ///
    /// # Errors
    ///
    /// The broker did not answer.
    pub async fn has_topic(&self, topic: &str) -> Result<bool> {
        let answer = remoting::ask(self.broker, GET_ALL_TOPIC_CONFIG, "{}", "").await?;
        Ok(String::from_utf8_lossy(&answer.body).contains(&format!(r#""{topic}""#)))
    }

    /// The offset that the next message of a queue will get; 0 where there is no such topic yet.
    ///
    /// # Errors
    ///
    /// The broker refused, or did not answer.
    pub async fn max_offset(&self, topic: &str, queue: u32) -> Result<i64> {
        self.offset_of(GET_MAX_OFFSET, topic, queue).await
    }

    /// The offset of the first message that a queue still has; 0 where there is no such topic yet.
    ///
    /// # Errors
    ///
    /// The broker refused, or did not answer.
    pub async fn min_offset(&self, topic: &str, queue: u32) -> Result<i64> {
        self.offset_of(GET_MIN_OFFSET, topic, queue).await
    }

    /// How far a group has come in a queue. Brokers say 0 for a group that they do not know while the queue is young,
    /// else `None`.
    ///
    /// # Errors
    ///
    /// The broker refused, or did not answer.
    pub async fn committed(&self, group: &str, topic: &str, queue: u32) -> Result<Option<i64>> {
        let fields = format!(r#"{{"consumerGroup":"{group}","topic":"{topic}","queueId":"{queue}"}}"#);
        let answer = remoting::ask(self.broker, QUERY_CONSUMER_OFFSET, &fields, "").await?;
        match answer.code {
            0 => offset(&answer.header).map(Some),
            QUERY_NOT_FOUND => Ok(None),
            _ => bail!("the broker does not tell the offset of {group}: {}", answer.header),
        }
    }

    /// How far the members of a group are in a topic, as they say themselves when the broker asks them: a map, by client
    /// id, of maps whose keys are objects, and so no JSON.
    ///
    /// # Errors
    ///
    /// The broker refused, or did not answer.
    pub async fn consumer_offsets(&self, group: &str, topic: &str) -> Result<String> {
        let fields = format!(r#"{{"group":"{group}","topic":"{topic}"}}"#);
        let answer = remoting::ask(self.broker, INVOKE_BROKER_TO_GET_CONSUMER_STATUS, &fields, "").await?;
        ensure!(answer.code == 0, "the broker does not tell what members of {group} say: {}", answer.header);
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Has a group go on, in all queues of a topic, from what was stored at or after a time in Unix milliseconds. The broker
    /// tells its members in the form for Java, or, as it does for operators whose tool is written in C++, in that for C.
    ///
    /// # Errors
    ///
    /// The broker refused, or did not answer.
    pub async fn reset_offset(&self, group: &str, topic: &str, time: i64, in_c: bool) -> Result<()> {
        let language = if in_c { "CPP" } else { "JAVA" };
        let fields =
            format!(r#"{{"topic":"{topic}","group":"{group}","timestamp":"{time}","isForce":"true"}}"#);
        let answer =
            remoting::ask_in(language, self.broker, INVOKE_BROKER_TO_RESET_OFFSET, &fields, "").await?;
        ensure!(answer.code == 0, "the broker does not reset the offsets of {group}: {}", answer.header);
        Ok(())
    }

    /// Stores a message in the first queue of a topic as it is, with flags that may be wrong.
    ///
    /// # Errors
    ///
    /// The broker refused, or did not answer.
    pub async fn store(&self, topic: &str, sys_flag: i32, body: &str) -> Result<()> {
        let fields = format!(
            r#"{{"producerGroup":"harness","topic":"{topic}","defaultTopic":"TBW102","defaultTopicQueueNums":"4",
                "queueId":"0","sysFlag":"{sys_flag}","bornTimestamp":"1700000000000","flag":"0","properties":"",
                "reconsumeTimes":"0"}}"#
        );
        let answer = remoting::ask(self.broker, SEND_MESSAGE, &fields, body).await?;
        ensure!(answer.code == 0, "the broker does not store the message: {}", answer.header);
        Ok(())
    }

    /// Stores how far a group has come in a queue.
    ///
    /// # Errors
    ///
    /// The broker refused, or did not answer.
    pub async fn commit(&self, group: &str, topic: &str, queue: u32, offset: i64) -> Result<()> {
        let fields = format!(
            r#"{{"consumerGroup":"{group}","topic":"{topic}","queueId":"{queue}","commitOffset":"{offset}"}}"#
        );
        let answer = remoting::ask(self.broker, UPDATE_CONSUMER_OFFSET, &fields, "").await?;
        ensure!(answer.code == 0, "the broker does not store the offset of {group}: {}", answer.header);
        Ok(())
    }

    /// Asks for the lock of a queue of `broker-a` in the name of a member; whether that member has it now.
    ///
    /// # Errors
    ///
    /// The broker refused, or did not answer.
    pub async fn lock(&self, group: &str, client_id: &str, topic: &str, queue: u32) -> Result<bool> {
        let answer = self.ask_for_lock(LOCK_BATCH_MQ, group, client_id, topic, queue).await?;
        let held: Value = serde_json::from_slice(&answer)?;
        Ok(held["lockOKMQSet"].as_array().is_some_and(|held| held.len() == 1))
    }

    /// Frees the lock of a queue of `broker-a` in the name of a member.
    ///
    /// # Errors
    ///
    /// The broker refused, or did not answer.
    pub async fn unlock(&self, group: &str, client_id: &str, topic: &str, queue: u32) -> Result<()> {
        self.ask_for_lock(UNLOCK_BATCH_MQ, group, client_id, topic, queue).await.map(drop)
    }

    async fn ask_for_lock(
        &self,
        code: u16,
        group: &str,
        client_id: &str,
        topic: &str,
        queue: u32,
    ) -> Result<Vec<u8>> {
        let body = format!(
            r#"{{"consumerGroup":"{group}","clientId":"{client_id}","mqSet":[{{"topic":"{topic}","brokerName":"broker-a","queueId":{queue}}}]}}"#
        );
        let answer = remoting::ask(self.broker, code, "{}", &body).await?;
        ensure!(answer.code == 0, "the broker refused: {}", answer.header);
        Ok(answer.body)
    }

    /// Says how the messages of a topic come to the members of a group: `PULL` or `POP`.
    ///
    /// # Errors
    ///
    /// The broker refused, or did not answer.
    pub async fn set_mode(&self, group: &str, topic: &str, mode: &str) -> Result<()> {
        let body = format!(
            r#"{{"topic":"{topic}","consumerGroup":"{group}","mode":"{mode}","popShareQueueNum":0}}"#
        );
        let answer = remoting::ask(self.broker, SET_MESSAGE_REQUEST_MODE, "{}", &body).await?;
        ensure!(answer.code == 0, "the broker does not set the mode of {group}: {}", answer.header);
        Ok(())
    }

    /// How the messages of a topic come to a member of a group, `PULL` or `POP`; nothing where the broker cannot tell.
    ///
    /// # Errors
    ///
    /// The broker refused, or did not answer.
    pub async fn mode(&self, group: &str, client_id: &str, topic: &str) -> Result<String> {
        let body = format!(
            r#"{{"topic":"{topic}","consumerGroup":"{group}","clientId":"{client_id}","strategyName":"AVG","messageModel":"CLUSTERING"}}"#
        );
        let answer = remoting::ask(self.broker, QUERY_ASSIGNMENT, "{}", &body).await?;
        ensure!(answer.code == 0, "the broker does not tell the mode of {group}: {}", answer.header);
        let assigned: Value = serde_json::from_slice(&answer.body)?;
        Ok(assigned["messageQueueAssignments"][0]["mode"].as_str().unwrap_or_default().to_owned())
    }

    /// The client ids of those who are in a group now.
    ///
    /// # Errors
    ///
    /// The broker did not answer, or nothing that can be read.
    pub async fn members(&self, group: &str) -> Result<Vec<String>> {
        let fields = format!(r#"{{"consumerGroup":"{group}"}}"#);
        let answer = remoting::ask(self.broker, GET_CONSUMER_LIST_BY_GROUP, &fields, "").await?;
        if answer.code == SYSTEM_ERROR {
            // A broker's way to say that there is nobody.
            return Ok(Vec::new());
        }
        ensure!(answer.code == 0, "the broker does not list {group}: {}", answer.header);
        let mut list: Value = serde_json::from_slice(&answer.body)?;
        Ok(serde_json::from_value(list["consumerIdList"].take())?)
    }

    async fn offset_of(&self, code: u16, topic: &str, queue: u32) -> Result<i64> {
        let fields = format!(r#"{{"topic":"{topic}","queueId":"{queue}"}}"#);
        let answer = remoting::ask(self.broker, code, &fields, "").await?;
        match answer.code {
            0 => offset(&answer.header),
            TOPIC_NOT_EXIST => Ok(0),
            _ => bail!("the broker does not tell an offset of {topic}: {}", answer.header),
        }
    }
}

/// Headers hold numbers as text; 5.x brokers may write them as numbers.
fn offset(header: &Value) -> Result<i64> {
    match &header["extFields"]["offset"] {
        Value::String(text) => Ok(text.parse()?),
        Value::Number(number) if number.is_i64() => Ok(number.as_i64().unwrap_or_default()),
        _ => bail!("there is no offset in {header}"),
    }
}
