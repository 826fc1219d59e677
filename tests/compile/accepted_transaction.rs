//! Every form of check; and that what was declared is what is called.

#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, unreachable_pub, unused_qualifications, single_use_lifetimes)]

use std::error::Error;

use rocketmq::__private::{TransactionDef, inventory};
use rocketmq::{
    Bytes, ConsumeContext, Delivery, FromMessage, IntoTransaction, Json, Message, MessageExt, Producers,
    Shape, State, Transaction,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Order<'a> {
    id: u32,
    customer: &'a str,
}

#[derive(Clone)]
struct Db;

/// The documentation stays.
#[rocketmq::transaction(producer = "owned")]
pub async fn owned(message: MessageExt) -> Transaction {
    if message.topic() == "t" { Transaction::Commit } else { Transaction::Rollback }
}

#[rocketmq::transaction(producer = "borrowed")]
async fn borrowed(message: &MessageExt, context: ConsumeContext) -> Result<Transaction, std::io::Error> {
    assert_eq!(context.topic(), message.topic());
    Ok(Transaction::Rollback)
}

#[rocketmq::transaction(producer = "json")]
async fn json(Json(order): Json<Order<'_>>, _: &MessageExt) -> anyhow::Result<Transaction> {
    assert_eq!((order.id, order.customer), (1, "x"));
    Ok(Transaction::Unknown)
}

#[rocketmq::transaction(producer = "text")]
async fn text(mut body: String) -> Result<Transaction, String> {
    body.push('!');
    Err(body)
}

#[rocketmq::transaction(producer = "bytes")]
async fn bytes(_body: Bytes) -> Result<Transaction, Box<dyn Error + Send + Sync>> {
    Ok(Transaction::Commit)
}

#[rocketmq::transaction(producer = "state")]
async fn state(_: &MessageExt, State(_db): State<Db>, _: Producers) -> Transaction {
    Transaction::Commit
}

// An argument and a result of the user's own.
struct Tenant<'a>(&'a str);

impl<'a> FromMessage<'a> for Tenant<'a> {
    const SHAPE: Shape = Shape::One;

    fn from_message(delivery: &'a Delivery) -> Result<Self, rocketmq::BadPayload> {
        Ok(Tenant(delivery.message().property("tenant").unwrap_or("nobody")))
    }
}

struct IsPaid(bool);

impl IntoTransaction for IsPaid {
    fn into_transaction(self) -> Result<Transaction, Box<dyn Error + Send + Sync>> {
        Ok(if self.0 { Transaction::Commit } else { Transaction::Rollback })
    }
}

#[rocketmq::transaction(producer = "own")]
async fn own(tenant: Tenant<'_>) -> Result<IsPaid, &'static str> {
    Ok(IsPaid(tenant.0 == "nobody"))
}

// Two producers with one check, one of which the configuration names.
#[rocketmq::transaction(producer = "orders")]
#[rocketmq::transaction(producer = "${bills:bills}")]
async fn both(_: MessageExt) -> Transaction {
    Transaction::Commit
}

// Below the attribute: what leaves the function out leaves the check out.
#[rocketmq::transaction(producer = "never")]
#[cfg(any())]
async fn never(_: MessageExt) -> Transaction {
    Transaction::Commit
}

// Names that generated code could be tempted to use, and keywords.
mod hygiene {
    #![allow(non_camel_case_types, dead_code)]

    enum Option {}
    enum Result {}
    enum Box {}
    mod std {}
    mod core {}

    #[::rocketmq::transaction(producer = "keyword")]
    async fn r#type(r#in: ::rocketmq::MessageExt) -> ::rocketmq::Transaction {
        drop(r#in);
        ::rocketmq::Transaction::Commit
    }
}

// The library where another crate exports it.
mod company {
    pub(crate) use rocketmq as queue;
}

#[company::queue::transaction(producer = "company", crate = "company::queue")]
async fn in_company(_: MessageExt) -> Transaction {
    Transaction::Commit
}

#[tokio::main]
async fn main() {
    let definitions: Vec<_> = inventory::iter::<TransactionDef>().collect();
    assert_eq!(definitions.len(), 11);
    for definition in definitions {
        let expected = match definition.producer {
            "borrowed" => Ok(Transaction::Rollback),
            "json" => Ok(Transaction::Unknown),
            "text" => Err("{\"id\":1,\"customer\":\"x\"}!"),
            // There is none here.
            "state" => Err("Db"),
            _ => Ok(Transaction::Commit),
        };
        let message = MessageExt::from(Message::new("t").body(r#"{"id":1,"customer":"x"}"#));
        let said = (definition.call)(Delivery::from(message)).await.map_err(|error| error.to_string());
        match (said, expected) {
            (Err(said), Err(words)) => assert!(said.contains(words), "{definition}: {said}"),
            (said, expected) => assert_eq!(said, expected.map_err(str::to_owned), "{definition}"),
        }
    }

    // A check is a function like any other.
    assert_eq!(text("x".into()).await, Err("x!".into()));
}
