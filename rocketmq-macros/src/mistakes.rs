//! All mistakes of one attribute, so that one compilation shows them all.

use proc_macro2::Span;
use syn::Error;

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Option<Error>);

impl Mistakes {
    /// Adds a mistake under the words at `span`.
    pub(crate) fn add(&mut self, span: Span, text: impl std::fmt::Display) {
        self.push(Error::new(span, text));
    }

    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// `value`, if there was no mistake; without a mistake there is a value.
    pub(crate) fn none_or<T>(self, value: Option<T>) -> Result<T, Error> {
        match self.0 {
            Some(error) => Err(error),
            None => value.ok_or_else(|| Error::new(Span::call_site(), "this attribute cannot be understood")),
        }
    }

    /// Takes the value out of `result`, or its mistakes.
    pub(crate) fn collect<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }
}
