//! Tokens to options and a signature. What they mean is not known here.

use proc_macro2::{TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Error, Expr, Ident, LitStr, Signature, Token, Visibility};

use crate::mistakes::Mistakes;

/// A macro of this crate, in the words of its mistakes.
#[derive(Debug)]
pub(crate) struct Macro {
    /// What it makes of a function.
    pub(crate) thing: &'static str,
    /// How it is written.
    pub(crate) attribute: &'static str,
    /// All options that there are.
    pub(crate) options: &'static [&'static str],
    /// Those that must be there,
    pub(crate) required_names: &'static [&'static str],
    /// and how they are written.
    pub(crate) required: &'static str,
    /// What users look for here and find under `section` of the file, since no one wants to compile to change a number.
    pub(crate) in_the_file: &'static [&'static str],
    pub(crate) section: &'static str,
    /// What to do where an option that names something is to have two values.
    pub(crate) if_twice: &'static str,
    /// What else its users call the option that it needs, without `_` and case.
    pub(crate) other_names: &'static [&'static str],
}

impl Macro {
    /// The last word of the attribute, however it is imported.
    pub(crate) fn name(&self) -> &'static str {
        self.attribute.rsplit("::").next().unwrap_or(self.attribute)
    }
}

pub(crate) const LISTENER: Macro = Macro {
    thing: "a listener",
    attribute: "rocketmq::listener",
    options: &["group", "topic", "tag", "sql", "orderly", "broadcast", "cluster", "crate"],
    required_names: &["group", "topic"],
    required: "group = \"...\", topic = \"...\"",
    in_the_file: &[
        "enabled",
        "concurrency",
        "batch",
        "pull_batch",
        "pull_batch_bytes",
        "pull_interval",
        "pull_error_delay",
        "post_subscription",
        "consume_from",
        "max_reconsume",
        "retry_delay",
        "suspend",
        "max_continuous",
        "consume_timeout",
        "on_bad_payload",
        "on_undecodable",
        "rate_limit",
        "skip_before",
        "flow",
        "allocate",
        "rooms",
        "queues",
        "mode",
        "rebalance",
        "pop",
    ],
    section: "groups:",
    if_twice: "; for two subscriptions write the attribute twice",
    other_names: &[],
};

/// The options of a listener that are there or not.
const FLAGS: [&str; 2] = ["orderly", "broadcast"];

pub(crate) const TRANSACTION: Macro = Macro {
    thing: "a check",
    attribute: "rocketmq::transaction",
    options: &["producer", "crate"],
    required_names: &["producer"],
    required: "producer = \"...\"",
    in_the_file: &["cluster", "concurrency", "queue", "timeout"],
    section: "producers:",
    if_twice: "; for two producers write the attribute twice",
    other_names: &["group", "name", "producergroup", "producername", "txproducergroup"],
};

/// `name` or `name = value`.
#[derive(Debug)]
pub(crate) struct Opt {
    pub(crate) name: Ident,
    pub(crate) value: Option<Expr>,
}

/// A function up to its body, of which the macro needs nothing.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) signature: Signature,
}

/// The options in the brackets of the attribute. After a mistake it goes on at the next comma.
pub(crate) fn options(tokens: TokenStream, of: &Macro, mistakes: &mut Mistakes) -> Vec<Opt> {
    let parser = |input: ParseStream<'_>| {
        let (mut options, mut is_nameless_told) = (Vec::new(), false);
        while !input.is_empty() {
            let is_nameless = !input.peek(Ident::peek_any);
            match option(input, of) {
                Ok(option) => options.push(option),
                Err(error) => {
                    // Those that are known by their order have one mistake together.
                    if !(is_nameless && is_nameless_told) {
                        mistakes.push(error);
                    }
                    is_nameless_told |= is_nameless;
                    skip_to_comma(input)?;
                }
            }
            input.parse::<Option<Token![,]>>()?;
        }
        Ok(options)
    };
    parser.parse2(tokens).unwrap_or_else(|error| {
        mistakes.push(error);
        Vec::new()
    })
}

fn option(input: ParseStream<'_>, of: &Macro) -> syn::Result<Opt> {
    if input.peek(Token![,]) {
        return Err(input.error("a comma too many"));
    }
    if !input.peek(Ident::peek_any) {
        return Err(input.error(format!("an option has a name: write #[{}({})]", of.attribute, of.required)));
    }
    let name = option_name(input)?;
    let has_value = input.peek(Token![=]) && !input.peek(Token![==]) && !input.peek(Token![=>]);
    if !(has_value || input.is_empty() || input.peek(Token![,])) {
        let text = if FLAGS.iter().any(|flag| name == flag) {
            format!("`{name}` takes no value: write `{name}`, or leave it out")
        } else {
            format!("an option is written {name} = \"...\"")
        };
        return Err(input.error(text));
    }
    let mut value = None;
    if has_value {
        let equals: Token![=] = input.parse()?;
        if input.is_empty() || input.peek(Token![,]) {
            return Err(Error::new(equals.span, format!("`{name}` has no value: write {name} = \"...\"")));
        }
        value = Some(input.parse()?);
    }
    if !input.is_empty() && !input.peek(Token![,]) {
        return Err(input.error(format!("expected a comma; an option is written {name} = \"...\"")));
    }
    Ok(Opt { name, value })
}

/// One word; or, from a file of properties, some with `-` between them, as one with `_`.
fn option_name(input: ParseStream<'_>) -> syn::Result<Ident> {
    let mut name = Ident::parse_any(input)?.unraw();
    while input.peek(Token![-]) && input.peek2(Ident::peek_any) {
        input.parse::<Token![-]>()?;
        name = Ident::new(&format!("{name}_{}", Ident::parse_any(input)?), name.span());
    }
    Ok(name)
}

/// The function under the attribute.
pub(crate) fn item(tokens: TokenStream, of: &Macro) -> syn::Result<Item> {
    let parser = |input: ParseStream<'_>| {
        let attributes = input.call(Attribute::parse_outer)?;
        let here = input.cursor().span();
        input.parse::<Visibility>()?;
        if !begins_function(input) {
            return Err(Error::new(
                here,
                format!("`#[{}]` belongs on an `async fn` outside of any `impl`", of.attribute),
            ));
        }
        let signature = input.parse()?;
        input.parse::<TokenStream>()?;
        Ok(Item { attributes, signature })
    };
    parser.parse2(tokens)
}

/// Whether an argument is a name without a type. The compiler has said so then, before it asked the macro.
pub(crate) fn has_untyped_argument(item: &TokenStream) -> bool {
    let signature = |input: ParseStream<'_>| {
        input.call(Attribute::parse_outer)?;
        input.parse::<Visibility>()?;
        input.parse::<Signature>()?;
        input.parse::<TokenStream>()
    };
    let mut behind_the_name = item.clone().into_iter().skip_while(|token| token.to_string() != "fn").skip(2);
    let Some(TokenTree::Group(arguments)) = behind_the_name.next() else { return false };
    let arguments: Vec<_> = arguments.stream().into_iter().collect();
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',');
    let is_untyped = |argument: &[TokenTree]| matches!(argument, [TokenTree::Ident(name)] if name != "self");
    arguments.split(is_comma).any(is_untyped) && signature.parse2(item.clone()).is_err()
}

fn begins_function(input: ParseStream<'_>) -> bool {
    let rest = input.fork();
    while rest.peek(Token![const])
        || rest.peek(Token![async])
        || rest.peek(Token![unsafe])
        || rest.peek(Token![extern])
        || rest.peek(LitStr)
    {
        if rest.parse::<TokenTree>().is_err() {
            return false;
        }
    }
    rest.peek(Token![fn])
}

fn skip_to_comma(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}
