//! What holds for the options of all macros.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprPath, Lit, LitStr, Path};

use crate::elsewhere::elsewhere;
use crate::mistakes::Mistakes;
use crate::parse::{Macro, Opt};
use crate::rules;

/// That each option is one of the macro's and given once.
pub(crate) fn check_names(options: &[Opt], of: &Macro, mistakes: &mut Mistakes) {
    for (at, option) in options.iter().enumerate() {
        let name = &option.name;
        if options[..at].iter().any(|earlier| earlier.name == *name) {
            mistakes.add(name.span(), format!("`{name}` is given twice{}", if_twice(option, of)));
        } else if !of.options.iter().any(|known| name == known) {
            mistakes.add(name.span(), unknown(option, of));
        }
    }
}

fn if_twice(option: &Opt, of: &Macro) -> &'static str {
    match (option.name.to_string().as_str(), &option.value) {
        ("tag", _) => "; tags are joined by `||`: tag = \"paid || refunded\"",
        ("group" | "topic" | "producer", _) => of.if_twice,
        _ => "; leave one out",
    }
}

fn unknown(option: &Opt, of: &Macro) -> String {
    let name = option.name.to_string();
    let in_the_file = |known: &&&str| without_case(known) == without_case(&name);
    if let Some(known) = of.in_the_file.iter().find(in_the_file) {
        let section = of.section;
        return format!(
            "`{name}` belongs in the configuration: set {} in rocketmq.yaml, under `{section}`",
            match *known == name {
                true => "it".to_owned(),
                false => format!("`{known}`"),
            }
        );
    }
    if is_other_name(option, of) {
        let required = of.required;
        return format!(
            "unknown option `{name}`: write {required}, the name under `{}` in rocketmq.yaml",
            of.section
        );
    }
    if let Some(place) = elsewhere(&name) {
        return format!("unknown option `{name}`: {place}");
    }
    let all = of.options.join(", ");
    match meant(option, of) {
        Some("topic") if is_list(option) => {
            format!("unknown option `{name}`: write topic = \"...\"{}", of.if_twice)
        }
        Some(known) => format!("unknown option `{name}`; did you mean `{known}`?\nthe options are: {all}"),
        None => format!("unknown option `{name}`\nthe options are: {all}"),
    }
}

/// The option that is written, or that seems to be.
fn meant(option: &Opt, of: &Macro) -> Option<&'static str> {
    if is_other_name(option, of) {
        return of.required_names.first().copied();
    }
    rules::nearest(&option.name.to_string(), of.options)
}

fn is_other_name(option: &Opt, of: &Macro) -> bool {
    of.other_names.contains(&without_case(&option.name.to_string()).as_str())
}

fn without_case(name: &str) -> String {
    name.replace('_', "").to_ascii_lowercase()
}

fn is_list(option: &Opt) -> bool {
    matches!(option.value, Some(Expr::Array(_) | Expr::Tuple(_)))
}

/// The value of a text option, if there is one and it is good.
pub(crate) fn text(
    options: &[Opt],
    name: &str,
    check: fn(&str) -> Result<(), String>,
    mistakes: &mut Mistakes,
) -> Option<LitStr> {
    let option = find(options, name)?;
    let Some(text) = option.value.as_ref().and_then(as_text) else {
        let mistake = no_text(option, name);
        match &option.value {
            Some(value) => mistakes.push(Error::new_spanned(value, mistake)),
            None => mistakes.add(option.name.span(), mistake),
        }
        return None;
    };
    let value = text.value();
    let checked = if value.trim().is_empty() { Err(empty(name)) } else { check(&value) };
    if let Err(rule) = checked {
        mistakes.add(text.span(), rule);
    }
    Some(text.clone())
}

fn no_text(option: &Opt, name: &str) -> String {
    match &option.value {
        Some(Expr::Binary(_) | Expr::Array(_) | Expr::Tuple(_)) if name == "tag" => {
            "`tag` takes one string, in which tags are joined by `||`: tag = \"paid || refunded\"".to_owned()
        }
        Some(Expr::Array(_) | Expr::Tuple(_)) if name == "topic" => {
            "`topic` takes one string; for two subscriptions write the attribute twice".to_owned()
        }
        Some(Expr::Path(_) | Expr::Macro(_) | Expr::Call(_) | Expr::MethodCall(_)) => format!(
            "`{name}` takes a string that is written here, as no constant's value is known to a macro: {name} = \"...\" (use \"${{ENV:default}}\" for a value from the configuration)"
        ),
        _ => format!(
            "`{name}` takes a string, for example {name} = \"...\" (use \"${{ENV:default}}\" for a value from the configuration)"
        ),
    }
}

fn empty(name: &str) -> String {
    match name {
        "tag" => "`tag` is empty: for every tag leave it out, or write \"*\"".to_owned(),
        "group" | "topic" | "producer" => format!("`{name}` is empty: write its name"),
        _ => format!("`{name}` is empty: leave it out, or write what it is to be"),
    }
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

/// Where the library is, if it is not `::rocketmq`.
pub(crate) fn library(options: &[Opt], mistakes: &mut Mistakes) -> Option<Path> {
    let option = find(options, "crate")?;
    let path = match &option.value {
        Some(Expr::Path(ExprPath { path, qself: None, .. })) => Some(path.clone()),
        Some(value) => as_text(value).and_then(|text| text.parse().ok()),
        None => None,
    };
    if path.is_none() {
        let span = option.value.as_ref().map_or(option.name.span(), Spanned::span);
        mistakes.add(span, "`crate` takes the path of the library where it has another name than `rocketmq`: crate = \"...\"");
    }
    path
}

/// Whether a flag is there.
pub(crate) fn flag(options: &[Opt], name: &str, mistakes: &mut Mistakes) -> bool {
    let option = find(options, name);
    if let Some(value) = option.and_then(|option| option.value.as_ref()) {
        mistakes.add(value.span(), format!("`{name}` takes no value: write `{name}`, or leave it out"));
    }
    option.is_some()
}

/// That no option is missing.
pub(crate) fn check_missing(options: &[Opt], of: &Macro, mistakes: &mut Mistakes) {
    // A name that was only misspelt is told once.
    let is_meant = |name| options.iter().any(|option| meant(option, of) == Some(name));
    let missing: Vec<_> = of.required_names.iter().copied().filter(|name| !is_meant(name)).collect();
    if !missing.is_empty() {
        let missing = missing.join("` and `");
        mistakes.add(
            Span::call_site(),
            format!("missing `{missing}`: write #[{}({})]", of.attribute, of.required),
        );
    }
}

pub(crate) fn find<'a>(options: &'a [Opt], name: &str) -> Option<&'a Opt> {
    options.iter().find(|option| option.name == name)
}
