//! The function under an attribute.

use syn::spanned::Spanned;
use syn::{Attribute, Error, FnArg, Ident, PatType, ReturnType, Safety, Signature, Type};

use crate::argument::{inner, instead_of, is_static};
use crate::mistakes::Mistakes;
use crate::parse::{Item, Macro};
use crate::{program, surroundings};

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
        // What is no function of its own has one mistake, whatever it takes; and of what a generic one takes nothing is known.
        let is_free =
            program::check(&attributes, &signature, of, mistakes) && check_place(&signature, of, mistakes);
        if is_free {
            check_signature(&signature, of, mistakes);
        }
        let is_known = is_free && signature.generics.params.is_empty();
        let inputs = signature.inputs.into_iter().filter(|_| is_known);
        let arguments = inputs.filter_map(|input| match input {
            FnArg::Typed(argument) => mistakes.collect(type_of(argument, of)),
            FnArg::Receiver(_) => None,
        });
        let arguments = arguments.collect();
        let is_condition = |attribute: &Attribute| attribute.path().is_ident("cfg");
        let conditions = attributes.into_iter().filter(is_condition).collect();
        Self { name: signature.ident, arguments, output: signature.output, conditions }
    }
}

/// That it stands in no `impl` and no `trait`; `false` after a mistake.
fn check_place(signature: &Signature, of: &Macro, mistakes: &mut Mistakes) -> bool {
    let thing = of.thing;
    if let Some(receiver) = signature.receiver() {
        mistakes.add(
            receiver.self_token.span,
            format!("{thing} is a free function, without `self`: what it needs it takes as `State<T>`"),
        );
        return false;
    }
    if surroundings::is_in_impl(of, signature) {
        mistakes.add(
            signature.ident.span(),
            format!(
                "{thing} is a free function: move it out of the `impl`; what it needs it takes as `State<T>`"
            ),
        );
        return false;
    }
    true
}

fn check_signature(signature: &Signature, of: &Macro, mistakes: &mut Mistakes) {
    let thing = of.thing;
    if let Some(token) = &signature.constness {
        mistakes.add(token.span, format!("{thing} is an `async fn`, which cannot be `const`: leave it out"));
    } else if signature.asyncness.is_none() {
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
    if let ReturnType::Type(_, output) = &signature.output
        && let Some(borrowed) = borrowed_reply(output)
    {
        mistakes.push(Error::new_spanned(
            borrowed,
            "a reply outlives the message: write `Reply<String>` or `Reply<Bytes>`",
        ));
    }
    if signature.inputs.is_empty() {
        mistakes.add(
            signature.ident.span(),
            format!("{thing} takes the message: add an argument for it, for example `message: &MessageExt`"),
        );
    }
}

/// Text or bytes in a `Reply` that are lent for the time of the call.
fn borrowed_reply(output: &Type) -> Option<&Type> {
    let Type::Path(path) = output else { return None };
    let (name, first) = (&path.path.segments.last()?.ident, inner(path)?);
    match first {
        Type::Reference(reference)
            if name == "Reply" && is_text(&reference.elem) && !is_static(reference) =>
        {
            Some(first)
        }
        _ if name == "Result" => borrowed_reply(first),
        _ => None,
    }
}

/// Whether it is text, or a slice as of bytes.
fn is_text(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => path.path.is_ident("str"),
        Type::Slice(_) => true,
        _ => false,
    }
}

fn type_of(argument: PatType, of: &Macro) -> syn::Result<Type> {
    let thing = of.thing;
    match *argument.ty {
        Type::ImplTrait(generic) => {
            Err(Error::new_spanned(generic, format!("{thing} cannot be generic: write the type out")))
        }
        ty => match instead_of(&ty, thing) {
            Some(advice) => Err(Error::new_spanned(ty, advice)),
            None => Ok(ty),
        },
    }
}
