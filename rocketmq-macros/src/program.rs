//! `main`, and what makes a function one that is run by itself.

use syn::{Attribute, Error, Signature};

use crate::mistakes::Mistakes;
use crate::parse::Macro;
use crate::surroundings;

/// Whether the attribute makes a program or a test of an `async fn`: `#[tokio::main]`, `#[tokio::test]` and their like.
pub(crate) fn starts_program(attribute: &Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|word| word.ident == "main" || word.ident == "test")
}

pub(crate) fn is_main(signature: &Signature) -> bool {
    signature.ident == "main"
}

/// That a function is one to be called, not one that is run; `false` after a mistake.
pub(crate) fn check(
    attributes: &[Attribute],
    signature: &Signature,
    of: &Macro,
    mistakes: &mut Mistakes,
) -> bool {
    if is_main(signature) {
        mistakes.add(signature.ident.span(), misplaced_main(of));
        return false;
    }
    let written = attributes.iter().find(|attribute| starts_program(attribute));
    let name = above(signature, of).or_else(|| written.map(surroundings::path));
    let text = name.map(|name| misplaced(&name, of));
    match (written, text) {
        (Some(attribute), Some(text)) => mistakes.push(Error::new_spanned(attribute, text)),
        (None, Some(text)) => mistakes.add(signature.ident.span(), text),
        (_, None) => return true,
    }
    false
}

/// What stood above was expanded first, and `async` is gone.
fn above(signature: &Signature, of: &Macro) -> Option<String> {
    if signature.asyncness.is_some() { None } else { surroundings::program(of, signature) }
}

fn misplaced(attribute: &str, Macro { thing, .. }: &Macro) -> String {
    match attribute.ends_with("test") {
        true => format!(
            "`#[{attribute}]` belongs on a test, which calls {thing} as any other function, or runs `rocketmq::testing::App`; {thing} is a function of its own"
        ),
        false => format!(
            "`#[{attribute}]` belongs on `main`, which calls `rocketmq::run().await`; {thing} is a function of its own"
        ),
    }
}

fn misplaced_main(Macro { thing, .. }: &Macro) -> String {
    format!(
        "`main` has `#[tokio::main]` and calls `rocketmq::run().await`; {thing} is a function of its own, with another name"
    )
}
