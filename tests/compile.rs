//! What the macros accept, and what they say about what they do not: each file beside it in `compile/` is a claim.

#[test]
fn mistakes_are_explained_where_they_are_made() {
    let cases = trybuild::TestCases::new();
    cases.pass("compile/accepted.rs");
    cases.pass("compile/accepted_transaction.rs");
    cases.compile_fail("compile/refused_*.rs");
}
