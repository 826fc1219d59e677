//! The attribute macros of the `rocketmq` crate, which exports and explains them; depend on that one.
//!
//! A macro goes one way: [`parse`] makes tokens into options and a signature, [`model`] checks them against the rules
//! and against each other, [`expand`] writes the code: one descriptor that the library finds when it starts. What a
//! listener does then is in the library, where it can be tested.

mod expand;
mod mistakes;
mod model;
mod parse;
mod rules;

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
/// | Option | Form | Meaning |
/// |---|---|---|
/// | `group` | text, required | The consumer group; all listeners of a group are one consumer. |
/// | `topic` | text, required | The topic. |
/// | `tag` | text, `"*"` if left out | Which tags, joined by two bars: `"paid \|\| refunded"`. |
/// | `sql` | text | Which properties, in SQL92; instead of `tag`. |
/// | `orderly` | flag | The messages of a queue are handled one after the other, each until it succeeds. |
/// | `broadcast` | flag | Every instance of the group gets every message. |
/// | `cluster` | text | A name under `clusters:` in the configuration. |
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
