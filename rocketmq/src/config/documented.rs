//! The documentation of the settings, for the schema: the one that is written at their fields.

/// What each field of a struct is documented to be.
pub(super) type Fields = &'static [(&'static str, &'static str)];

/// Declares the struct as it is written, and keeps the documentation of its fields as `FIELDS`.
///
/// A field is a key: what `rustdoc` says of the one is what editors say of the other. (Rustfmt does not look into it.)
macro_rules! settings {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[doc = $doc:literal])* pub $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$attribute])*
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl $name {
            pub(in crate::config) const FIELDS: $crate::config::documented::Fields =
                &[$((stringify!($field), concat!($($doc, "\n"),*)),)*];
        }
    };
}

pub(super) use settings;

/// The documentation of one field, unfolded: a line is a paragraph.
pub(super) fn documentation(fields: Fields, key: &str) -> Option<String> {
    let (_, text) = fields.iter().find(|(name, _)| *name == key)?;
    let paragraphs = text.trim().split("\n\n").map(|paragraph| {
        let words: Vec<&str> = paragraph.split_whitespace().collect();
        words.join(" ")
    });
    Some(paragraphs.collect::<Vec<_>>().join("\n"))
}
