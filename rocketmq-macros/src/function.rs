//! The function under an attribute.

use syn::spanned::Spanned;
use syn::{Attribute, Error, FnArg, Ident, ReturnType, Safety, Signature, Type};

use crate::argument::instead_of;
use crate::mistakes::Mistakes;
use crate::parse::{Item, Macro};
use crate::surroundings;

/// The function under the attribute.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: Ident,
    pub(crate) arguments: Vec<Type>,
    pub(crate) output: ReturnType,
    /// `#[cfg]`s below the attribute: where they leave the function out, there is nothing to call.
    pub(crate) conditions: Vec<Attribute>,
}

impl Function {
    pub(crate) fn new(Item { attributes, signature }: Item, of: &Macro, mistakes: &mut Mistakes) -> Self {
        check_signature(&signature, of, mistakes);
        let arguments =
            signature.inputs.into_iter().filter_map(|input| mistakes.collect(argument(input, of))).collect();
        let is_condition = |attribute: &Attribute| attribute.path().is_ident("cfg");
        let conditions = attributes.into_iter().filter(is_condition).collect();
        Self { name: signature.ident, arguments, output: signature.output, conditions }
    }
}

fn check_signature(signature: &Signature, of: &Macro, mistakes: &mut Mistakes) {
    let thing = of.thing;
    if signature.asyncness.is_none() {
        mistakes.add(
            signature.fn_token.span,
            format!(
                "{thing} is an `async fn`; for blocking work call `tokio::task::spawn_blocking` inside it"
            ),
        );
    }
    if let Some(abi) = &signature.abi {
        mistakes.add(abi.span(), format!("{thing} is a function of Rust: leave `extern` out"));
    }
    if let Some(variadic) = &signature.variadic {
        mistakes.add(variadic.span(), format!("{thing} takes a fixed list of arguments"));
    }
    if let Safety::Unsafe(token) = &signature.safety {
        mistakes.add(
            token.span,
            format!("{thing} cannot be `unsafe`: nothing that calls it could keep a promise for it"),
        );
    }
    if !signature.generics.params.is_empty() {
        mistakes.add(
            signature.generics.params.span(),
            format!("{thing} cannot be generic: write the types out; lifetimes can be left out, as in `&MessageExt`"),
        );
    }
    // Of a function that is not `async`, it is the future: told above.
    if signature.asyncness.is_some()
        && let ReturnType::Type(_, output) = &signature.output
        && let Type::ImplTrait(opaque) = &**output
    {
        mistakes.push(Error::new_spanned(
            opaque,
            format!("{thing} cannot return `impl ...`: write the type out"),
        ));
    }
    let attribute = of.attribute.rsplit("::").next().unwrap_or(of.attribute);
    let name = signature.ident.to_string();
    // One with `self` is told below.
    if signature.receiver().is_none() && surroundings::is_in_impl(attribute, &name) {
        mistakes.add(
            signature.ident.span(),
            format!(
                "{thing} is a free function: move it out of the `impl`; what it needs it takes as `State<T>`"
            ),
        );
    }
    if signature.inputs.is_empty() {
        mistakes.add(
            signature.ident.span(),
            format!("{thing} takes the message: add an argument for it, for example `message: &MessageExt`"),
        );
    }
}

fn argument(input: FnArg, of: &Macro) -> syn::Result<Type> {
    let thing = of.thing;
    match input {
        FnArg::Receiver(receiver) => Err(Error::new(
            receiver.self_token.span,
            format!("{thing} is a free function, without `self`: what it needs it takes as `State<T>`"),
        )),
        FnArg::Typed(typed) => match *typed.ty {
            Type::ImplTrait(generic) => {
                Err(Error::new_spanned(generic, format!("{thing} cannot be generic: write the type out")))
            }
            ty => match instead_of(&ty) {
                Some(advice) => Err(Error::new_spanned(ty, advice)),
                None => Ok(ty),
            },
        },
    }
}
