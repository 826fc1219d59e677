//! A listener, checked: what its options say, and what its function is.

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, FnArg, Ident, Lit, LitStr, ReturnType, Safety, Signature, Type};

use crate::mistakes::Mistakes;
use crate::parse::{Item, Opt};
use crate::rules;

/// Everything that `expand` writes down.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) options: Options,
    pub(crate) function: Function,
}

/// The options of the attribute.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) group: LitStr,
    pub(crate) topic: LitStr,
    pub(crate) tag: Option<LitStr>,
    pub(crate) sql: Option<LitStr>,
    pub(crate) orderly: bool,
    pub(crate) broadcast: bool,
    pub(crate) cluster: Option<LitStr>,
}

/// The function under the attribute.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: Ident,
    pub(crate) arguments: Vec<Type>,
    pub(crate) output: ReturnType,
    /// `#[cfg]`s below the attribute: where they leave the function out, there is nothing to call.
    pub(crate) conditions: Vec<Attribute>,
}

impl Listener {
    /// Checks both halves, so that the mistakes of both are shown.
    pub(crate) fn new(options: &[Opt], item: syn::Result<Item>, mut mistakes: Mistakes) -> syn::Result<Self> {
        let options = Options::new(options, &mut mistakes);
        let function = mistakes.collect(item).map(|item| Function::new(item, &mut mistakes));
        let listener = options.zip(function).map(|(options, function)| Self { options, function });
        mistakes.none_or(listener)
    }
}

impl Options {
    const ALL: [&str; 7] = ["group", "topic", "tag", "sql", "orderly", "broadcast", "cluster"];

    /// What users look for here and find under `groups:`, since no one wants to compile to change a number.
    const IN_THE_FILE: [&str; 11] = [
        "concurrency",
        "batch",
        "pull_batch",
        "consume_from",
        "max_reconsume",
        "retry_delay",
        "suspend",
        "consume_timeout",
        "on_bad_payload",
        "flow",
        "allocate",
    ];

    /// `None` after a mistake.
    fn new(options: &[Opt], mistakes: &mut Mistakes) -> Option<Self> {
        // What could not be read may be what seems to be missing.
        if mistakes.is_empty() {
            check_missing(options, mistakes);
        }
        check_names(options, mistakes);
        check_together(options, mistakes);
        let group = text(options, "group", rules::check_group, mistakes);
        let topic = text(options, "topic", rules::check_topic, mistakes);
        let tag = text(options, "tag", rules::check_tag, mistakes);
        let sql = text(options, "sql", rules::check_text, mistakes);
        let cluster = text(options, "cluster", rules::check_text, mistakes);
        let orderly = flag(options, "orderly", mistakes);
        let broadcast = flag(options, "broadcast", mistakes);
        let (group, topic) = group.zip(topic)?;
        Some(Self { group, topic, tag, sql, orderly, broadcast, cluster })
    }
}

fn check_names(options: &[Opt], mistakes: &mut Mistakes) {
    for (at, option) in options.iter().enumerate() {
        let name = &option.name;
        if options[..at].iter().any(|earlier| earlier.name == *name) {
            mistakes.add(
                name.span(),
                format!("`{name}` is given twice; for two subscriptions write the attribute twice"),
            );
        } else if !Options::ALL.iter().any(|known| name == known) {
            mistakes.add(name.span(), unknown(option));
        }
    }
}

fn unknown(option: &Opt) -> String {
    let name = option.name.unraw().to_string();
    if Options::IN_THE_FILE.contains(&name.as_str()) {
        return format!("`{name}` belongs in the configuration: set it in rocketmq.yaml, under `groups:`");
    }
    let all = Options::ALL.join(", ");
    match meant(option) {
        Some(known) => format!("unknown option `{name}`; did you mean `{known}`?\nthe options are: {all}"),
        None => format!("unknown option `{name}`\nthe options are: {all}"),
    }
}

/// The option that is written, or that seems to be.
fn meant(option: &Opt) -> Option<&'static str> {
    rules::nearest(&option.name.unraw().to_string(), &Options::ALL)
}

/// The value of a text option, if there is one and it is good.
fn text(
    options: &[Opt],
    name: &str,
    check: fn(&str) -> Result<(), String>,
    mistakes: &mut Mistakes,
) -> Option<LitStr> {
    let option = find(options, name)?;
    let Some(text) = option.value.as_ref().and_then(as_text) else {
        let span = option.value.as_ref().map_or(option.name.span(), Spanned::span);
        mistakes.add(
            span,
            format!(
                "`{name}` takes a string, for example {name} = \"...\" (use \"${{ENV:default}}\" for a value from the configuration)"
            ),
        );
        return None;
    };
    let value = text.value();
    let checked = if value.trim().is_empty() { Err(format!("`{name}` is empty")) } else { check(&value) };
    if let Err(rule) = checked {
        mistakes.add(text.span(), rule);
    }
    Some(text.clone())
}

fn as_text(value: &Expr) -> Option<&LitStr> {
    match value {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text),
            _ => None,
        },
        // What a `macro_rules!` macro put in comes in invisible brackets.
        Expr::Group(group) => as_text(&group.expr),
        _ => None,
    }
}

fn flag(options: &[Opt], name: &str, mistakes: &mut Mistakes) -> bool {
    let option = find(options, name);
    if let Some(value) = option.and_then(|option| option.value.as_ref()) {
        mistakes.add(value.span(), format!("`{name}` takes no value: write `{name}`, or leave it out"));
    }
    option.is_some()
}

fn check_missing(options: &[Opt], mistakes: &mut Mistakes) {
    // A name that was only misspelt is told once.
    let is_meant = |name| options.iter().any(|option| meant(option) == Some(name));
    let missing: Vec<_> = ["group", "topic"].into_iter().filter(|name| !is_meant(*name)).collect();
    if !missing.is_empty() {
        let missing = missing.join("` and `");
        mistakes.add(
            Span::call_site(),
            format!("missing `{missing}`: write #[rocketmq::listener(group = \"...\", topic = \"...\")]"),
        );
    }
}

fn check_together(options: &[Opt], mistakes: &mut Mistakes) {
    if let (Some(_), Some(sql)) = (find(options, "tag"), find(options, "sql")) {
        mistakes.add(sql.name.span(), "a listener chooses by `tag` or by `sql`, not by both");
    }
    if let (Some(orderly), Some(_)) = (find(options, "orderly"), find(options, "broadcast")) {
        mistakes.add(
            orderly.name.span(),
            "a broadcast listener cannot be orderly: the broker locks queues only for clustering consumers",
        );
    }
}

fn find<'a>(options: &'a [Opt], name: &str) -> Option<&'a Opt> {
    options.iter().find(|option| option.name == name)
}

impl Function {
    fn new(Item { attributes, signature }: Item, mistakes: &mut Mistakes) -> Self {
        check_signature(&signature, mistakes);
        let arguments =
            signature.inputs.into_iter().filter_map(|input| mistakes.collect(argument(input))).collect();
        let is_condition = |attribute: &Attribute| attribute.path().is_ident("cfg");
        let conditions = attributes.into_iter().filter(is_condition).collect();
        Self { name: signature.ident, arguments, output: signature.output, conditions }
    }
}

fn check_signature(signature: &Signature, mistakes: &mut Mistakes) {
    if signature.asyncness.is_none() {
        mistakes.add(
            signature.fn_token.span,
            "a listener is an `async fn`; for blocking work call `tokio::task::spawn_blocking` inside it",
        );
    }
    if let Safety::Unsafe(token) = &signature.safety {
        mistakes.add(
            token.span,
            "a listener cannot be `unsafe`: nothing that calls it could keep a promise for it",
        );
    }
    if !signature.generics.params.is_empty() {
        mistakes.add(
            signature.generics.params.span(),
            "a listener cannot be generic: write the types out; lifetimes can be left out, as in `&MessageExt`",
        );
    }
    if signature.inputs.is_empty() {
        mistakes.add(
            signature.ident.span(),
            "a listener takes the message: add an argument for it, for example `message: &MessageExt`",
        );
    }
}

fn argument(input: FnArg) -> syn::Result<Type> {
    match input {
        FnArg::Receiver(receiver) => Err(Error::new(
            receiver.self_token.span,
            "a listener is a free function, without `self`: what it needs it takes as `State<T>`",
        )),
        FnArg::Typed(typed) => match *typed.ty {
            Type::ImplTrait(generic) => {
                Err(Error::new_spanned(generic, "a listener cannot be generic: write the type out"))
            }
            ty => Ok(ty),
        },
    }
}
