//! Types of arguments that are nearly right.

use syn::{GenericArgument, PathArguments, Type, TypePath, TypeReference, parse_quote};

/// What to take in the place of a type of which the compiler could only say that it is no argument, as `thing` takes it.
pub(crate) fn instead_of(ty: &Type, thing: &str) -> Option<String> {
    match ty {
        Type::Group(group) => instead_of(&group.elem, thing),
        Type::Paren(paren) => instead_of(&paren.elem, thing),
        Type::Reference(reference) => instead_of_reference(reference, thing),
        Type::Path(path) => instead_of_path(path, thing),
        Type::Slice(_) => {
            Some(format!("{thing} borrows a batch as `&[MessageExt]`, or takes it as `Vec<...>`"))
        }
        Type::TraitObject(_) => Some(format!(
            "{thing} takes what is shared as `State<Arc<dyn ...>>`; give an `Arc<dyn ...>` to the builder"
        )),
        _ => None,
    }
}

fn instead_of_reference(reference: &TypeReference, thing: &str) -> Option<String> {
    if reference.mutability.is_some() {
        return Some(format!(
            "{thing} cannot take `&mut`: calls run at the same time; take `State<T>` with a lock or channel in it"
        ));
    }
    let name = name_of(&reference.elem);
    let is_message = name.as_ref().is_none_or(|name| name == "MessageExt");
    match (&*reference.elem, name.as_deref()) {
        (_, Some("str")) => Some(format!("{thing} takes the text as `String`, or borrows it: `&MessageExt` has `body_str()`")),
        (Type::Slice(slice), _) if name_of(&slice.elem).is_some_and(|name| name == "u8") => {
            Some(format!("{thing} takes the bytes of the body as `Bytes`, or borrows them: `&MessageExt` has `body()`"))
        }
        (Type::Slice(slice), _) if name_of(&slice.elem).is_some_and(|name| ["Json", "String", "Bytes"].contains(&&*name)) => {
            Some(format!("{thing} takes the bodies of a batch as `Vec<...>`: only `&[MessageExt]` is lent"))
        }
        _ if is_static(reference) && is_message => {
            Some("the message is lent for the time of the call, not for `'static`: write `&MessageExt`, or take it by value".into())
        }
        _ if is_static(reference) => Some("nothing is lent for `'static`: take `State<T>` if it is shared, `Json<T>` if it is the body".into()),
        (_, Some(name @ ("String" | "Bytes" | "Json" | "State" | "ConsumeContext" | "Producer" | "Producers"))) => {
            Some(format!("take it by value, without `&`: `{name}` is made for each call"))
        }
        (_, Some("Vec")) => Some(format!("{thing} takes a batch as `Vec<...>`, without `&`, or as `&[MessageExt]`")),
        _ => None,
    }
}

fn instead_of_path(path: &TypePath, thing: &str) -> Option<String> {
    let name = path.path.segments.last()?.ident.to_string();
    match (name.as_str(), inner_name(path).as_deref()) {
        ("Option", _) => Some(format!(
            "{thing} cannot take `Option`: take `Result<..., BadPayload>` to see what does not decode; a property that may be missing is in `&MessageExt`"
        )),
        ("State", Some("State")) => {
            Some("`State` in `State`: write `State<T>` with the type that was given to the builder".into())
        }
        ("State", _) if without_size(path) => Some(match inner(path) {
            Some(Type::TraitObject(_)) => "state is a value that is cloned: write `State<Arc<dyn ...>>`, and give an `Arc<dyn ...>` to the builder".into(),
            _ => "state is a value that is cloned: write `State<Arc<...>>`, and give an `Arc<...>` to the builder".into(),
        }),
        ("Json", Some("str")) => Some("a text has no size of its own: write `Json<String>`, or `Json<&str>` to borrow it".into()),
        ("Arc" | "Box" | "Rc", Some("MessageExt")) => {
            Some("write `MessageExt`, by value: a clone of it is cheap, and shares the body".into())
        }
        ("Message", _) => Some(format!("`Message` is one to be sent; {thing} takes `MessageExt`")),
        ("str", _) => Some(format!("{thing} takes the text as `String`")),
        ("Vec", Some("u8")) => Some(format!("{thing} takes the bytes of the body as `Bytes`")),
        ("Vec", Some("Message")) => Some("`Message` is one to be sent; a batch is `Vec<MessageExt>`".into()),
        ("Vec", None) if matches!(inner(path), Some(Type::Reference(reference)) if name_of(&reference.elem).is_some_and(|name| name == "MessageExt")) => {
            Some(format!("{thing} borrows a batch as `&[MessageExt]`, or takes it as `Vec<MessageExt>`"))
        }
        _ => None,
    }
}

/// The nearest type that has a size, where `ty` has none: for a function that stays after [`instead_of`] was told.
pub(crate) fn with_size(ty: &Type) -> Option<Type> {
    match ty {
        Type::Slice(_) | Type::TraitObject(_) => Some(parse_quote! { &'static (#ty) }),
        Type::Path(path) if path.path.is_ident("str") => Some(parse_quote! { &'static #ty }),
        Type::Path(path) if without_size(path) => {
            let mut path = path.clone();
            let PathArguments::AngleBracketed(arguments) = &mut path.path.segments.last_mut()?.arguments
            else {
                return None;
            };
            for argument in &mut arguments.args {
                if let GenericArgument::Type(inner) = argument {
                    *inner = parse_quote! { ::std::sync::Arc<#inner> };
                }
            }
            Some(Type::Path(path))
        }
        _ => None,
    }
}

/// Whether it is `State` or `Json` of what has no size.
fn without_size(path: &TypePath) -> bool {
    let name = path.path.segments.last().map(|segment| segment.ident.to_string());
    let is_holder = name.is_some_and(|name| name == "State" || name == "Json");
    is_holder
        && inner(path).is_some_and(|inner| match inner {
            Type::TraitObject(_) | Type::Slice(_) => true,
            Type::Path(inner) => inner.path.is_ident("str"),
            _ => false,
        })
}

pub(crate) fn is_static(reference: &TypeReference) -> bool {
    reference.lifetime.as_ref().is_some_and(|lifetime| lifetime.ident == "static")
}

/// The last word of a path.
fn name_of(ty: &Type) -> Option<String> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        _ => None,
    }
}

/// The name of the first type in the brackets of a path.
fn inner_name(path: &TypePath) -> Option<String> {
    inner(path).and_then(name_of)
}

/// The first type in the brackets of a path.
pub(crate) fn inner(path: &TypePath) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}
