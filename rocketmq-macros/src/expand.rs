//! The code that stands beside the function.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{LitStr, ReturnType, Type};

use crate::mistakes::Mistakes;
use crate::model::{Function, Listener};
use crate::parse;

/// `item` as it was written, and beside it its descriptor or what is wrong with it.
pub(crate) fn listener(args: TokenStream, item: &TokenStream) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let options = parse::options(args, &mut mistakes);
    match Listener::new(&options, syn::parse2(item.clone()), mistakes) {
        Ok(listener) => {
            let descriptor = descriptor(&listener);
            // A listener without an `await` is `async` all the same: Clippy's advice would not compile.
            quote! { #[allow(clippy::unused_async)] #item #descriptor }
        }
        // Keep the function: the editor stays useful, and one mistake gives one error.
        Err(error) => {
            let error = error.into_compile_error();
            quote! { #item #error }
        }
    }
}

fn descriptor(Listener { options, function }: &Listener) -> TokenStream {
    let name = LitStr::new(&format!("::{}", function.name.unraw()), function.name.span());
    let (group, topic) = (&options.group, &options.topic);
    let (tag, sql, cluster) = (option(&options.tag), option(&options.sql), option(&options.cluster));
    let (orderly, broadcast) = (options.orderly, options.broadcast);
    let (arguments, call, conditions) = (arguments(function), call(function), &function.conditions);
    quote! {
        #(#conditions)*
        const _: () = {
            ::rocketmq::__private::inventory::submit! {
                ::rocketmq::__private::ListenerDef {
                    name: ::rocketmq::__private::concat!(::rocketmq::__private::module_path!(), #name),
                    file: ::rocketmq::__private::file!(),
                    line: ::rocketmq::__private::line!(),
                    group: #group,
                    topic: #topic,
                    tag: #tag,
                    sql: #sql,
                    orderly: #orderly,
                    broadcast: #broadcast,
                    cluster: #cluster,
                    arguments: #arguments,
                    call: #call,
                }
            }
        };
    }
}

fn option(text: &Option<LitStr>) -> TokenStream {
    match text {
        Some(text) => quote! { ::rocketmq::__private::Option::Some(#text) },
        None => quote! { ::rocketmq::__private::Option::None },
    }
}

/// What the library checks together while the program is compiled; its error stands under the function's name.
fn arguments(function: &Function) -> TokenStream {
    let all = function.arguments.iter().map(|ty| {
        quote_spanned! { ty.span() => <#ty as ::rocketmq::__private::FromMessage<'_>>::ARGUMENT }
    });
    let arguments =
        quote_spanned! { function.name.span() => ::rocketmq::__private::Arguments::new(&[#(#all),*]) };
    match &function.output {
        ReturnType::Type(_, ty) if !matches!(**ty, Type::ImplTrait(_)) => {
            let replies =
                quote_spanned! { ty.span() => <#ty as ::rocketmq::__private::IntoConsumeResult>::REPLIES };
            quote_spanned! { ty.span() => #arguments.with_result(#replies) }
        }
        _ => arguments,
    }
}

/// A direct call for each argument and for the result, so that an error stands under the type that caused it.
fn call(Function { name, arguments, output, .. }: &Function) -> TokenStream {
    // Names that no constant of the user's has: a pattern would mean that constant.
    let delivery = Ident::new("__delivery", Span::mixed_site());
    let names: Vec<_> =
        (0..arguments.len()).map(|at| format_ident!("__argument{at}", span = Span::mixed_site())).collect();
    let extractions = arguments.iter().zip(&names).map(|(ty, name)| extraction(ty, name, &delivery));
    let into_outcome = match output {
        ReturnType::Type(_, ty) if !matches!(**ty, Type::ImplTrait(_)) => {
            quote_spanned! { ty.span() => <#ty as ::rocketmq::__private::IntoConsumeResult>::into_outcome }
        }
        _ => quote! { ::rocketmq::__private::IntoConsumeResult::into_outcome },
    };
    let future = quote! {
        #(#extractions)*
        #into_outcome(#name(#(#names),*).await)
    };
    // Under the function's name stands the error for a future that is not `Send`.
    quote_spanned! { name.span() => |#delivery| ::rocketmq::__private::Box::pin(async move { #future }) }
}

fn extraction(ty: &Type, name: &Ident, delivery: &Ident) -> TokenStream {
    let value = Ident::new("__value", Span::mixed_site());
    let from_message =
        quote_spanned! { ty.span() => <#ty as ::rocketmq::__private::FromMessage<'_>>::from_message };
    quote! {
        let #name = match #from_message(&#delivery) {
            ::rocketmq::__private::Result::Ok(#value) => #value,
            ::rocketmq::__private::Result::Err(#value) => return ::rocketmq::__private::Outcome::from(#value),
        };
    }
}
