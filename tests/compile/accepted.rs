//! Every form of attribute, argument and result; and that what was declared is what is called.

#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, unreachable_pub, unused_qualifications, single_use_lifetimes)]

use rocketmq::__private::{ListenerDef, inventory};
use rocketmq::{
    BadPayload, Bytes, ConsumeConcurrentlyResult, ConsumeConcurrentlyStatus, ConsumeContext, ConsumeResult, DelayLevel,
    Delivery, FromMessage, IntoConsumeResult, Json, Message, MessageExt, Outcome, Reply, Shape, State,
    StateKey,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Order<'a> {
    id: u32,
    customer: &'a str,
}

#[derive(Clone)]
struct Db;

type Batch = Vec<MessageExt>;
type Answer = Result<(), std::io::Error>;

/// The documentation stays.
#[rocketmq::listener(group = "g", topic = "owned")]
pub async fn owned(message: MessageExt) {
    assert_eq!(message.topic(), "owned");
}

#[rocketmq::listener(group = "g", topic = "borrowed", tag = "a || b")]
async fn borrowed(message: &MessageExt, context: ConsumeContext) -> ConsumeResult {
    assert_eq!(context.topic(), message.topic());
    if context.attempt() > 3 { ConsumeResult::DeadLetter } else { ConsumeResult::Success }
}

#[rocketmq::listener(group = "g", topic = "json", sql = "amount > 1")]
async fn json(Json(order): Json<Order<'_>>, _: MessageExt) -> Answer {
    assert_eq!((order.id, order.customer), (1, "x"));
    Ok(())
}

#[rocketmq::listener(group = "g", topic = "text", orderly)]
async fn text(mut body: String) -> Result<ConsumeResult, String> {
    body.push('!');
    Err(body)
}

#[rocketmq::listener(group = "g", topic = "questions")]
async fn answer(question: String) -> Result<Reply<Json<usize>>, String> {
    Ok(Reply(Json(question.len())))
}

#[rocketmq::listener(group = "g", topic = "bytes", broadcast, cluster = "dr")]
async fn bytes(_body: Bytes) -> anyhow::Result<ConsumeResult> {
    Ok(ConsumeResult::ReconsumeAfter(DelayLevel::M1))
}

#[rocketmq::listener(group = "g", topic = "batch")]
async fn batch(messages: Batch) -> ConsumeConcurrentlyResult {
    ConsumeConcurrentlyResult {
        status: ConsumeConcurrentlyStatus::ConsumeSuccess,
        ack_index: messages.len() as i32,
    }
}

#[rocketmq::listener(group = "g", topic = "slice")]
async fn slice(messages: &[MessageExt]) -> ConsumeResult {
    ConsumeResult::AckFirst(messages.len())
}

#[rocketmq::listener(group = "g", topic = "bodies")]
async fn bodies(orders: Vec<Json<Order<'_>>>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    assert_eq!(orders.len(), 1);
    Ok(())
}

#[rocketmq::listener(group = "g", topic = "texts")]
async fn texts(_texts: Vec<String>, State(_db): State<Db>) {}

#[rocketmq::listener(group = "g", topic = "raw")]
async fn raw(_bodies: Vec<Bytes>) {}

// An argument and a result of the user's own.
struct Tenant<'a>(&'a str);

impl<'a> FromMessage<'a> for Tenant<'a> {
    const SHAPE: Shape = Shape::One;

    fn from_message(delivery: &'a Delivery) -> Result<Self, BadPayload> {
        Ok(Tenant(delivery.message().property("tenant").unwrap_or("nobody")))
    }

    fn requires() -> Vec<StateKey> {
        State::<Db>::requires()
    }
}

#[rocketmq::listener(group = "g", topic = "judged")]
async fn judged(body: Result<Json<u32>, BadPayload>) -> ConsumeResult {
    if body.is_err() { ConsumeResult::DeadLetter } else { ConsumeResult::Success }
}

#[rocketmq::listener(group = "g", topic = "judged-batch")]
async fn judged_batch(bodies: Vec<Result<Json<u32>, BadPayload>>) -> ConsumeResult {
    ConsumeResult::AckFirst(bodies.iter().filter(|body| body.is_ok()).count())
}

struct Done;

impl IntoConsumeResult for Done {
    fn into_outcome(self) -> Outcome {
        ConsumeResult::Success.into()
    }
}

#[rocketmq::listener(group = "g", topic = "own")]
async fn own(tenant: Tenant<'_>) -> Result<Done, &'static str> {
    if tenant.0 == "nobody" { Ok(Done) } else { Err("no one else is here") }
}

// Two subscriptions of one function, and texts that the configuration completes.
#[rocketmq::listener(group = "mail", topic = "${mail.topic:mails}", tag = "${tags}")]
#[rocketmq::listener(group = "mail-${ENV}", topic = "mails-vip")]
async fn mail(_: MessageExt) {}

// Below the attribute: what leaves the function out leaves the listener out.
#[rocketmq::listener(group = "g", topic = "never")]
#[cfg(any())]
async fn never(_: MessageExt) {}

// Names that generated code could be tempted to use, and keywords.
mod hygiene {
    #![allow(non_camel_case_types, non_upper_case_globals, dead_code, unused_macros)]

    enum Option {}
    enum Result {}
    enum Box {}
    mod std {}
    mod core {}
    const delivery: u8 = 0;
    const value: u8 = 0;
    macro_rules! concat {
        () => {};
    }
    macro_rules! line {
        () => {};
    }

    #[::rocketmq::listener(group = "g", topic = "keyword")]
    async fn r#type(r#in: ::rocketmq::MessageExt) {
        drop(r#in);
    }

    #[::rocketmq::listener(group = "g", topic = "call")]
    async fn call(_: ::rocketmq::MessageExt) {}
}

// What a macro of the user's own writes.
macro_rules! subscribe {
    ($name:ident, $topic:literal) => {
        #[rocketmq::listener(group = "g", topic = $topic)]
        async fn $name(_: MessageExt) {}
    };
}

subscribe!(by_macro, "by-macro");

// The library where another crate exports it.
mod company {
    pub(crate) use rocketmq as queue;
}

#[company::queue::listener(group = "g", topic = "company", crate = "company::queue")]
async fn in_company(_: MessageExt) {}

#[company::queue::listener(group = "g", topic = "company-too", crate = crate::company::queue)]
async fn in_company_too(_: MessageExt) {}

#[tokio::main]
async fn main() {
    // In a function, as in a test.
    #[rocketmq::listener(group = "g", topic = "inner")]
    async fn inner(_: MessageExt) {}

    let definitions: Vec<_> = inventory::iter::<ListenerDef>().collect();
    assert_eq!(definitions.len(), 22);
    for definition in definitions {
        let expected = match definition.topic {
            "text" => "Failed(\"{\\\"id\\\":1,\\\"customer\\\":\\\"x\\\"}!\")",
            "questions" => "Reply",
            "bytes" => "Done(ReconsumeAfter(DelayLevel(5)))",
            "judged" => "Done(DeadLetter)",
            "judged-batch" => "Done(AckFirst(0))",
            "batch" => "Done(AckFirst(2))",
            "slice" => "Done(AckFirst(1))",
            // The only one that reads state, of which there is none here.
            "texts" => "Failed(MissingState(StateKey(accepted::Db)))",
            _ => "Done(Success)",
        };
        let topic = if definition.topic.contains('$') { "mails" } else { definition.topic };
        let message = Message::new(topic).body(r#"{"id":1,"customer":"x"}"#);
        let outcome = (definition.call)(Delivery::from(MessageExt::from(message))).await;
        if let Outcome::Reply(reply) = &outcome {
            assert_eq!((expected, &reply.payload()[..]), ("Reply", &b"23"[..]));
            continue;
        }
        let outcome = format!("{outcome:?}").replace(&format!("{}::Db", module_path!()), "accepted::Db");
        assert_eq!(outcome, expected, "{definition}");
    }

    // A listener is a function like any other.
    mail(MessageExt::from(Message::new("mails").body("x"))).await;
    assert_eq!(text("x".into()).await, Err("x!".into()));
}
