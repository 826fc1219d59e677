//! The attribute macros of the `rocketmq` crate, which exports and explains them; depend on that one.
//!
//! A macro goes one way: [`parse`] makes tokens into options and a signature, [`model`] (or [`transaction`](mod@transaction))
//! checks them against the rules and against each other, [`expand`] writes the code: one descriptor that the library finds
//! when it starts. What a listener or a check does then is in the library, where it can be tested.

mod argument;
mod elsewhere;
mod expand;
mod function;
mod left;
mod mistakes;
mod model;
mod options;
mod parse;
mod program;
mod rules;
mod surroundings;
mod transaction;

use proc_macro::TokenStream;

/// Makes an `async fn` a listener: from [`run`] on, it is called with each message of a topic.
///
/// ```text
/// #[rocketmq::listener(group = "orders", topic = "order-events", tag = "paid || refunded")]
/// async fn on_order(Json(order): Json<Order>, State(db): State<Db>) -> anyhow::Result<()> {
///     db.store(order).await?;
///     Ok(())
/// }
/// ```
///
/// | Option | Form | Default | Meaning |
/// |---|---|---|---|
/// | `group` | text of 1 to 120 `a-z A-Z 0-9 _ - % \|` | required | The consumer group; all listeners of a group are one consumer. |
/// | `topic` | text of 1 to 127 of the same | required | The topic. |
/// | `tag` | text | `"*"`: all | Which tags, joined by two bars: `"paid \|\| refunded"`. |
/// | `sql` | text | none | Which properties, in SQL92; instead of `tag`. |
/// | `orderly` | flag | concurrent | The messages of a queue are handled one after the other, each until it succeeds. |
/// | `broadcast` | flag | clustering | Every instance of the group gets every message; not with `orderly`. |
/// | `cluster` | text | the one at the top level | A name under `clusters:` in the configuration. |
/// | `crate` | path, as text or plain | `::rocketmq` | Where this library is: `crate = "mq"` where `Cargo.toml` says `mq = { package = "rocketmq" }`, or `crate = "company::rocketmq"` where another crate exports it. |
///
/// A text may hold `${name}` or `${name:default}`, which the configuration resolves. How many run at once, how large
/// a batch is, how often and when a message is delivered again: that is configuration, too, not code.
///
/// Arguments may be whatever is [`FromMessage`], in any order; the result whatever is [`IntoConsumeResult`]. The
/// function stays what it is: call it in a test. For two subscriptions write the attribute twice.
///
/// A listener is found wherever its crate is linked, in a module, in a function or in another crate. A crate of which
/// the program uses nothing is not linked: say `use that_crate as _;`.
///
/// [`run`]: https://docs.rs/rocketmq/latest/rocketmq/fn.run.html
/// [`FromMessage`]: https://docs.rs/rocketmq/latest/rocketmq/trait.FromMessage.html
/// [`IntoConsumeResult`]: https://docs.rs/rocketmq/latest/rocketmq/trait.IntoConsumeResult.html
#[proc_macro_attribute]
pub fn listener(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::listener(args.into(), &item.into()).into()
}

/// Makes an `async fn` the check of a producer's transactions: brokers ask it what has become of those that did not end.
///
/// ```text
/// #[rocketmq::transaction(producer = "orders")]
/// async fn check(message: MessageExt, State(db): State<Db>) -> anyhow::Result<Transaction> {
///     match db.find(message.message_id()).await? {
///         Some(_) => Ok(Transaction::Commit),
///         None => Ok(Transaction::Rollback),
///     }
/// }
/// ```
///
/// | Option | Form | Meaning |
/// |---|---|---|
/// | `producer` | text, required | The producer's name under `producers:` in the configuration, which says `transaction: true`. |
/// | `crate` | path, as text or plain | Where this library is, if it has another name than `rocketmq`: see [`listener`](macro@listener). |
///
/// The text may hold `${name}` or `${name:default}`. Each producer has one check; for two producers write the attribute
/// twice. How many checks run at once is configuration: `check:` of the producer.
///
/// The message is that of an open transaction: one whose local part ([`send_in_transaction`]) failed, or whose process
/// died, or a process of the same group elsewhere. Arguments may be whatever is [`FromMessage`], one message at a time;
/// the result whatever is [`IntoTransaction`]. An error and a panic leave the transaction open: the broker asks again.
///
/// [`send_in_transaction`]: https://docs.rs/rocketmq/latest/rocketmq/struct.Producer.html#method.send_in_transaction
/// [`FromMessage`]: https://docs.rs/rocketmq/latest/rocketmq/trait.FromMessage.html
/// [`IntoTransaction`]: https://docs.rs/rocketmq/latest/rocketmq/trait.IntoTransaction.html
#[proc_macro_attribute]
pub fn transaction(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::transaction(args.into(), &item.into()).into()
}
