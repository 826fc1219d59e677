//! Tokens to options and a signature. What they mean is not known here.

use proc_macro2::{TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Attribute, Error, Expr, Ident, Signature, Token, Visibility};

use crate::mistakes::Mistakes;

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
pub(crate) fn options(tokens: TokenStream, mistakes: &mut Mistakes) -> Vec<Opt> {
    let parser = |input: ParseStream<'_>| {
        let mut options = Vec::new();
        while !input.is_empty() {
            match input.parse() {
                Ok(option) => options.push(option),
                Err(error) => {
                    mistakes.push(error);
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

impl Parse for Opt {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if !input.peek(Ident::peek_any) {
            return Err(input.error("an option has a name: write group = \"...\", topic = \"...\""));
        }
        let name = Ident::parse_any(input)?;
        let mut value = None;
        if input.peek(Token![=]) {
            let equals: Token![=] = input.parse()?;
            if input.is_empty() || input.peek(Token![,]) {
                return Err(Error::new(
                    equals.span,
                    format!("`{name}` has no value: write {name} = \"...\""),
                ));
            }
            value = Some(input.parse()?);
        }
        if !input.is_empty() && !input.peek(Token![,]) {
            return Err(input.error(format!("expected a comma; an option is written {name} = \"...\"")));
        }
        Ok(Self { name, value })
    }
}

impl Parse for Item {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let here = input.cursor().span();
        input.parse::<Visibility>()?;
        let signature = input
            .parse()
            .map_err(|_| Error::new(here, "`#[rocketmq::listener]` belongs on an `async fn`"))?;
        input.parse::<TokenStream>()?;
        Ok(Self { attributes, signature })
    }
}

fn skip_to_comma(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}
