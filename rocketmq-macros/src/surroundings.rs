//! What stands around a function: a macro is not told, its source file says.

use std::fs;

use proc_macro::Span;
use quote::ToTokens;
use syn::{Attribute, ImplItem, Item, Signature, Stmt, TraitItem};

use crate::parse::Macro;
use crate::program::starts_program;

/// Whether the function, which has the attribute, stands in an `impl` or a `trait`.
///
/// A macro that writes code beside such a function gets it wrong, and what the compiler says then is about that code. So the
/// file is read, but for attributes at the beginning of a line, which stand in nothing. Where there is no file, as in the
/// code of another macro, the answer is no, and the compiler has its say.
pub(crate) fn is_in_impl(of: &Macro, function: &Signature) -> bool {
    let is_indented = 1 < Span::call_site().column();
    is_indented && text().is_some_and(|text| stands_in_impl(&text, of.name(), &function.ident.to_string()))
}

/// The attribute above that made a program of the function, such as `tokio::main`, if it was an `async fn` in the file.
pub(crate) fn program(of: &Macro, function: &Signature) -> Option<String> {
    text().and_then(|text| program_above(&text, of.name(), &function.ident.to_string()))
}

/// The file in which the attribute is.
fn text() -> Option<String> {
    Span::call_site().local_file().and_then(|file| fs::read_to_string(file).ok())
}

fn program_above(text: &str, attribute: &str, function: &str) -> Option<String> {
    let file = syn::parse_file(text).ok()?;
    let mut found = Found::new(attribute, function);
    file.items.iter().for_each(|item| found.look_into(item));
    found.program
}

/// Where one outside of any `impl` has the same name and the attribute as well, it cannot be told, and is not said.
fn stands_in_impl(text: &str, attribute: &str, function: &str) -> bool {
    let Ok(file) = syn::parse_file(text) else { return false };
    let mut found = Found::new(attribute, function);
    file.items.iter().for_each(|item| found.look_into(item));
    found.associated && !found.free
}

/// Where such a function was found.
struct Found<'a> {
    attribute: &'a str,
    function: &'a str,
    associated: bool,
    free: bool,
    /// The attribute that makes a program of it, if it is `async`.
    program: Option<String>,
}

impl<'a> Found<'a> {
    fn new(attribute: &'a str, function: &'a str) -> Self {
        Self { attribute, function, associated: false, free: false, program: None }
    }

    fn look_into(&mut self, item: &Item) {
        match item {
            Item::Fn(item) => {
                if self.is_meant(&item.sig, &item.attrs) {
                    self.free = true;
                    let program = item.attrs.iter().find(|attribute| starts_program(attribute));
                    self.program = program.filter(|_| item.sig.asyncness.is_some()).map(path);
                }
                for statement in &item.block.stmts {
                    if let Stmt::Item(inner) = statement {
                        self.look_into(inner);
                    }
                }
            }
            Item::Mod(module) => {
                let items = module.content.iter().flat_map(|(_, items)| items);
                items.for_each(|inner| self.look_into(inner));
            }
            Item::Impl(block) => {
                self.associated |= block
                    .items
                    .iter()
                    .any(|item| matches!(item, ImplItem::Fn(item) if self.is_meant(&item.sig, &item.attrs)));
            }
            Item::Trait(block) => {
                self.associated |= block
                    .items
                    .iter()
                    .any(|item| matches!(item, TraitItem::Fn(item) if self.is_meant(&item.sig, &item.attrs)));
            }
            _ => {}
        }
    }

    /// The attribute is the last word of its path: it may be imported, or written with the crate's name.
    fn is_meant(&self, signature: &Signature, attributes: &[Attribute]) -> bool {
        let is_meant = |attribute: &Attribute| {
            attribute.path().segments.last().is_some_and(|word| word.ident == self.attribute)
        };
        signature.ident == self.function && attributes.iter().any(is_meant)
    }
}

/// For example `tokio::main`.
pub(crate) fn path(attribute: &Attribute) -> String {
    attribute.path().to_token_stream().to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_made_a_program_of_an_async_function_is_found() {
        let listener = "#[rocketmq::listener(group = \"g\", topic = \"t\")]";
        for (text, expected) in [
            (format!("#[tokio::main] {listener} async fn f(m: MessageExt) {{}}"), Some("tokio::main")),
            (format!("mod inner {{ #[tokio::test] {listener} async fn f() {{}} }}"), Some("tokio::test")),
            (format!("{listener} async fn f(m: MessageExt) {{}}"), None),
            (format!("#[tokio::main] {listener} fn f(m: MessageExt) {{}}"), None),
            (format!("#[tokio::main] {listener} async fn another(m: MessageExt) {{}}"), None),
            ("#[tokio::main] async fn f(m: MessageExt) {}".to_owned(), None),
        ] {
            assert_eq!(program_above(&text, "listener", "f").as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn functions_of_impls_are_told_from_free_ones() {
        let attribute = "#[rocketmq::listener(group = \"g\", topic = \"t\")]";
        let function = format!("{attribute} async fn f(message: MessageExt) {{}}");
        let same_name = format!("{function} impl L {{ async fn f(&self) {{}} }}");
        let both = format!("{function} impl L {{ {function} }}");
        for (text, expected) in [
            (function.clone(), false),
            (format!("mod inner {{ {function} }}"), false),
            (format!("fn outer() {{ {function} }}"), false),
            (same_name, false),
            (both, false),
            ("not rust".to_owned(), false),
            (format!("impl L {{ {function} }}"), true),
            (format!("mod inner {{ impl L for M {{ {function} }} }}"), true),
            (format!("fn outer() {{ struct L; impl L {{ {function} }} }}"), true),
            (format!("trait L {{ {function} }}"), true),
        ] {
            assert_eq!(stands_in_impl(&text, "listener", "f"), expected, "{text}");
        }
    }
}
