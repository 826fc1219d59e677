//! The code that stands beside the function.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{LitStr, Path, ReturnType, Type};

use crate::function::Function;
use crate::left;
use crate::mistakes::Mistakes;
use crate::model::Listener;
use crate::parse::{self, LISTENER, TRANSACTION};
use crate::transaction::Transaction;

/// `item` as it was written, and beside it its descriptor or what is wrong with it.
pub(crate) fn listener(args: TokenStream, item: &TokenStream) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let options = parse::options(args, &LISTENER, &mut mistakes);
    let listener = Listener::new(&options, parse::item(item.clone(), &LISTENER), mistakes);
    beside(item, listener.map(|listener| listener_descriptor(&listener)))
}

/// The same for the check of a producer's transactions.
pub(crate) fn transaction(args: TokenStream, item: &TokenStream) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let options = parse::options(args, &TRANSACTION, &mut mistakes);
    let transaction = Transaction::new(&options, parse::item(item.clone(), &TRANSACTION), mistakes);
    beside(item, transaction.map(|transaction| transaction_descriptor(&transaction)))
}

fn beside(item: &TokenStream, descriptor: syn::Result<TokenStream>) -> TokenStream {
    match descriptor {
        _ if parse::has_untyped_argument(item) => item.clone(),
        // A function without an `await` is `async` all the same: Clippy's advice would not compile.
        Ok(descriptor) => quote! { #[allow(clippy::unused_async)] #item #descriptor },
        Err(error) => {
            let (item, error) = (left::in_place(item), error.into_compile_error());
            quote! { #item #error }
        }
    }
}

fn listener_descriptor(Listener { options, function }: &Listener) -> TokenStream {
    let place = place(function);
    let (group, topic) = (&options.group, &options.topic);
    let (tag, sql, cluster) = (option(&options.tag), option(&options.sql), option(&options.cluster));
    let (orderly, broadcast) = (options.orderly, options.broadcast);
    let (arguments, conditions) = (arguments(function), &function.conditions);
    let library = library(options.library.as_ref());
    let call = call(
        function,
        &quote! { __rocketmq::IntoConsumeResult },
        &quote! { into_outcome },
        &quote! { __rocketmq::Outcome::from },
    );
    quote! {
        #(#conditions)*
        #[allow(unused_qualifications)]
        const _: () = {
            #library
            __rocketmq::inventory::submit! {
                __rocketmq::ListenerDef {
                    #place
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

fn transaction_descriptor(Transaction { producer, library: at, function }: &Transaction) -> TokenStream {
    let library = library(at.as_ref());
    let (place, conditions) = (place(function), &function.conditions);
    let arguments = checked_arguments(function, "CheckArguments");
    let call = call(
        function,
        &quote! { __rocketmq::IntoTransaction },
        &quote! { into_transaction },
        &quote! { __rocketmq::undecided },
    );
    quote! {
        #(#conditions)*
        #[allow(unused_qualifications)]
        const _: () = {
            #library
            __rocketmq::inventory::submit! {
                __rocketmq::TransactionDef {
                    #place
                    producer: #producer,
                    arguments: #arguments,
                    call: #call,
                }
            }
        };
    }
}

/// The library under a name of its own, so that one error says that it is not where it was looked for.
fn library(at: Option<&Path>) -> TokenStream {
    match at {
        Some(path) => quote_spanned! { path.span() => use #path::__private as __rocketmq; },
        None => quote! { use ::rocketmq::__private as __rocketmq; },
    }
}

/// Where the function is.
fn place(function: &Function) -> TokenStream {
    let name = LitStr::new(&format!("::{}", function.name.unraw()), function.name.span());
    quote! {
        name: __rocketmq::concat!(__rocketmq::module_path!(), #name),
        file: __rocketmq::file!(),
        line: __rocketmq::line!(),
    }
}

fn option(text: &Option<LitStr>) -> TokenStream {
    match text {
        Some(text) => quote! { __rocketmq::Option::Some(#text) },
        None => quote! { __rocketmq::Option::None },
    }
}

/// What the library checks while the program is compiled. An error stands under the argument that does not go with those
/// before it, or under the result that does not go with the arguments.
fn arguments(function: &Function) -> TokenStream {
    let arguments = checked_arguments(function, "Arguments");
    match &function.output {
        ReturnType::Type(_, ty) if !matches!(**ty, Type::ImplTrait(_)) => {
            let replies = quote_spanned! { ty.span() => <#ty as __rocketmq::IntoConsumeResult>::REPLIES };
            quote_spanned! { ty.span() => __rocketmq::Arguments::with_result(#arguments, #replies) }
        }
        _ => arguments,
    }
}

/// The arguments as a `kind`; that the message is not among them stands under the function's name.
fn checked_arguments(function: &Function, kind: &str) -> TokenStream {
    let needs = function.arguments.iter().fold(quote! { __rocketmq::Needs::NONE }, |before, ty| {
        let (kind, argument) = (Ident::new(kind, ty.span()), argument(ty));
        quote_spanned! { ty.span() => __rocketmq::#kind::and(#before, #argument) }
    });
    let (kind, all) = (Ident::new(kind, function.name.span()), function.arguments.iter().map(argument));
    let all = quote! { #(#all),* };
    quote_spanned! { function.name.span() => __rocketmq::#kind::new(&[#all], #needs) }
}

fn argument(ty: &Type) -> TokenStream {
    quote_spanned! { ty.span() => <#ty as __rocketmq::FromMessage<'_>>::ARGUMENT }
}

/// A direct call for each argument, and of `result::method` for the result, so that an error stands under the type that
/// caused it. Where there is no such argument, `bad` makes a result of the reason.
fn call(
    Function { name, arguments, output, .. }: &Function,
    result: &TokenStream,
    method: &TokenStream,
    bad: &TokenStream,
) -> TokenStream {
    // Names that no constant of the user's has: a pattern would mean that constant.
    let delivery = Ident::new("__delivery", Span::mixed_site());
    let names: Vec<_> =
        (0..arguments.len()).map(|at| format_ident!("__argument{at}", span = Span::mixed_site())).collect();
    let extractions = arguments.iter().zip(&names).map(|(ty, name)| extraction(ty, name, &delivery, bad));
    let into_result = match output {
        ReturnType::Type(_, ty) if !matches!(**ty, Type::ImplTrait(_)) => {
            quote_spanned! { ty.span() => <#ty as #result>::#method }
        }
        // No result is one, too: an error about it stands under the function's name.
        ReturnType::Default => quote_spanned! { name.span() => <() as #result>::#method },
        ReturnType::Type(..) => quote! { #result::#method },
    };
    let future = quote! {
        #(#extractions)*
        #into_result(#name(#(#names),*).await)
    };
    // Under the function's name stands the error for a future that is not `Send`.
    quote_spanned! { name.span() => |#delivery| __rocketmq::Box::pin(async move { #future }) }
}

fn extraction(ty: &Type, name: &Ident, delivery: &Ident, bad: &TokenStream) -> TokenStream {
    let value = Ident::new("__value", Span::mixed_site());
    let from_message = quote_spanned! { ty.span() => <#ty as __rocketmq::FromMessage<'_>>::from_message };
    quote! {
        let #name = match #from_message(&#delivery) {
            __rocketmq::Result::Ok(#value) => #value,
            __rocketmq::Result::Err(#value) => return #bad(#value),
        };
    }
}
