//! What holds for the options of all macros.

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Expr, ExprPath, Lit, LitStr, Path};

use crate::elsewhere::elsewhere;
use crate::mistakes::Mistakes;
use crate::parse::{Macro, Opt};
use crate::rules;

/// That each option is one of the macro's and given once.
pub(crate) fn check_names(options: &[Opt], of: &Macro, mistakes: &mut Mistakes) {
    for (at, option) in options.iter().enumerate() {
        let name = &option.name;
        if options[..at].iter().any(|earlier| earlier.name == *name) {
            mistakes.add(name.span(), format!("`{name}` is given twice{}", of.if_twice));
        } else if !of.options.iter().any(|known| name == known) {
            mistakes.add(name.span(), unknown(option, of));
        }
    }
}

fn unknown(option: &Opt, of: &Macro) -> String {
    let name = option.name.unraw().to_string();
    if of.in_the_file.contains(&name.as_str()) {
        let section = of.section;
        return format!("`{name}` belongs in the configuration: set it in rocketmq.yaml, under `{section}`");
    }
    if let Some(place) = elsewhere(&name) {
        return format!("unknown option `{name}`: {place}");
    }
    let all = of.options.join(", ");
    match meant(option, of) {
        Some(known) => format!("unknown option `{name}`; did you mean `{known}`?\nthe options are: {all}"),
        None => format!("unknown option `{name}`\nthe options are: {all}"),
    }
}

/// The option that is written, or that seems to be.
fn meant(option: &Opt, of: &Macro) -> Option<&'static str> {
    rules::nearest(&option.name.unraw().to_string(), of.options)
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
        let span = option.value.as_ref().map_or(option.name.span(), Spanned::span);
        let text = match option.value {
            Some(Expr::Array(_) | Expr::Tuple(_)) if name == "tag" => {
                "`tag` takes one string, in which tags are joined by `||`: tag = \"paid || refunded\""
                    .to_owned()
            }
            _ => format!(
                "`{name}` takes a string, for example {name} = \"...\" (use \"${{ENV:default}}\" for a value from the configuration)"
            ),
        };
        mistakes.add(span, text);
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
