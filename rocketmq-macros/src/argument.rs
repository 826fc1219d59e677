//! Types of arguments that are nearly right.

use syn::{GenericArgument, PathArguments, Type, TypePath, TypeReference};

/// What to take in the place of a type of which the compiler could only say that it is no argument.
pub(crate) fn instead_of(ty: &Type) -> Option<String> {
    match ty {
        Type::Group(group) => instead_of(&group.elem),
        Type::Paren(paren) => instead_of(&paren.elem),
        Type::Reference(reference) if reference.mutability.is_some() => {
            Some("a listener cannot take `&mut`: calls run at the same time; take `State<T>` with a lock or channel in it".into())
        }
        Type::Reference(reference) if is_static(reference) && name_of(&reference.elem).is_none_or(|name| name != "str") => {
            Some("the message is lent for the time of the call, not for `'static`: write `&MessageExt`, or take it by value".into())
        }
        Type::Reference(reference) => match name_of(&reference.elem)?.as_str() {
            "str" => Some("a listener takes the text as `String`, or borrows it: `&MessageExt` has `body_str()`".into()),
            name @ ("String" | "Bytes" | "Json" | "State" | "ConsumeContext" | "Producer") => {
                Some(format!("take it by value, without `&`: `{name}` is made for each call"))
            }
            "Vec" => Some("a listener takes a batch as `Vec<...>`, without `&`, or as `&[MessageExt]`".into()),
            _ => None,
        },
        Type::Path(path) => {
            let inner = inner_name(path);
            match (name_of(ty)?.as_str(), inner.as_deref()) {
                ("Option", _) => Some(
                    "a listener cannot take `Option`: take `Result<..., BadPayload>` to see what does not decode; a property that may be missing is in `&MessageExt`"
                        .into(),
                ),
                ("State", Some("State")) => Some("`State` in `State`: write `State<T>` with the type that was given to the builder".into()),
                ("State", None) if holds_trait_object(path) => {
                    Some("state is a value that is cloned: write `State<Arc<dyn ...>>`, and give an `Arc<dyn ...>` to the builder".into())
                }
                ("Message", _) => Some("`Message` is one to be sent; a listener takes `MessageExt`".into()),
                ("str", _) => Some("a listener takes the text as `String`".into()),
                ("Vec", Some("u8")) => Some("a listener takes the bytes of the body as `Bytes`".into()),
                ("Vec", Some("Message")) => Some("`Message` is one to be sent; a batch is `Vec<MessageExt>`".into()),
                _ => None,
            }
        }
        _ => None,
    }
}

fn is_static(reference: &TypeReference) -> bool {
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

fn holds_trait_object(path: &TypePath) -> bool {
    matches!(inner(path), Some(Type::TraitObject(_)))
}

/// The first type in the brackets of a path.
fn inner(path: &TypePath) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}
