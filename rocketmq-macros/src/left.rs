//! What stays of a function whose attribute was refused.
//!
//! It stays where it is, so that the editor stays useful and its callers compile; but for what would be told once more, in the
//! compiler's words.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, FnArg, Signature, Visibility};

use crate::argument::with_size;
use crate::program::{is_main, starts_program};

/// `item` without what was told already; as it is, if it is no function.
pub(crate) fn in_place(item: &TokenStream) -> TokenStream {
    let parser = |input: ParseStream<'_>| {
        let attributes = input.call(Attribute::parse_outer)?;
        Ok((
            attributes,
            input.parse::<Visibility>()?,
            input.parse::<Signature>()?,
            input.parse::<TokenStream>()?,
        ))
    };
    match parser.parse2(item.clone()) {
        // With arguments, or `async`, it would be no `main`; and a program needs one.
        Ok((_, _, signature, _)) if is_main(&signature) => {
            let main = syn::Ident::new("main", Span::call_site());
            quote! { fn #main() {} }
        }
        Ok((attributes, visibility, signature, body)) => {
            let attributes = attributes.iter().filter(|attribute| !starts_program(attribute));
            let signature = tolerable(signature);
            quote! { #(#attributes)* #visibility #signature #body }
        }
        Err(_) => item.clone(),
    }
}

fn tolerable(mut signature: Signature) -> impl ToTokens {
    signature.constness = None;
    for input in &mut signature.inputs {
        if let FnArg::Typed(argument) = input
            && let Some(ty) = with_size(&argument.ty)
        {
            *argument.ty = ty;
        }
    }
    signature
}
