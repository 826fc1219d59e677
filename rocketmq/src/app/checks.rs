//! Which check belongs to which producer of transactions, and everything that speaks against it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{ConfigErrors, LoadedConfig, Problem, suggestion};
use crate::listener::StateMap;
use crate::producer::{CheckHandler, TransactionDef};

/// All checks of a program.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) annotated: Vec<&'static TransactionDef>,
    /// Those that were given to the builder, by the names of their producers.
    pub(super) by_hand: Vec<(String, CheckHandler)>,
}

/// The check of each producer of transactions, by the producer's name; state is not looked at where it is `None`.
pub(super) fn plan(
    loaded: &LoadedConfig,
    checks: Checks,
    state: Option<&Arc<StateMap>>,
    problems: &mut ConfigErrors,
) -> BTreeMap<String, CheckHandler> {
    let mut planned: BTreeMap<String, CheckHandler> = BTreeMap::new();
    for (producer, check) in declared(loaded, checks, state, problems) {
        if !check_producer(loaded, &producer, &check, problems) {
            continue;
        }
        match planned.get(&producer) {
            None => drop(planned.insert(producer, check)),
            Some(first) => problems.push(
                Problem::new(format!("the producer `{producer}` has two checks"))
                    .detail(first.place())
                    .detail(check.place())
                    .detail("a producer has one, which looks at what the message is about; give the others producers of their own"),
            ),
        }
    }
    for (name, _) in loaded.config.producers.iter().filter(|(_, config)| config.transaction) {
        if !planned.contains_key(name) {
            let key = format!("producers.{name}.transaction");
            let problem = Problem::new(format!(
                "{key}: the producer has no check to tell brokers what has become of its transactions"
            ))
            .detail(format!("annotate one: #[rocketmq::transaction(producer = \"{name}\")]"))
            .detail("if it is in another crate, add `use that_crate as _;` to main.rs: a crate that is not named is not linked");
            problems.push(at_place(loaded, &key, problem));
        }
    }
    planned
}

/// All checks with the names of their producers, in the order of the source.
fn declared(
    loaded: &LoadedConfig,
    Checks { mut annotated, by_hand }: Checks,
    state: Option<&Arc<StateMap>>,
    problems: &mut ConfigErrors,
) -> Vec<(String, CheckHandler)> {
    annotated.sort_by_key(|definition| (definition.file, definition.line, definition.name));
    let mut declared = Vec::new();
    for definition in annotated {
        for missing in state.into_iter().flat_map(|state| definition.missing_state(state)) {
            problems.push(
                Problem::new(format!("{definition} takes State<{missing}>, but there is no such state"))
                    .detail("give it to the builder: App::builder().state(value)"),
            );
        }
        match loaded.resolve(definition.producer) {
            Ok(producer) => {
                let config = loaded.config.producers.get(&producer);
                let group = config.and_then(|config| config.group.as_deref()).unwrap_or(&producer);
                let check = CheckHandler::of(definition, group, state.cloned().unwrap_or_default());
                declared.push((producer, check));
            }
            Err(problem) => problems.push(problem.at(definition.to_string())),
        }
    }
    declared.extend(by_hand);
    declared
}

/// That there is such a producer, and that it sends in transactions.
fn check_producer(
    loaded: &LoadedConfig,
    name: &str,
    check: &CheckHandler,
    problems: &mut ConfigErrors,
) -> bool {
    let producers = &loaded.config.producers;
    match producers.get(name) {
        Some(config) if config.transaction => true,
        // Whether it has them is not known.
        Some(_) if !loaded.is_sound(&["producers", name, "transaction"]) => true,
        Some(_) => {
            let problem =
                Problem::new(format!("the check {} is for a producer without transactions", check.place()));
            let fix = format!(
                "say so under `producers:`: `{name}: {{ group: a-group-of-this-application, transaction: true }}`"
            );
            problems.push(at_place(loaded, &format!("producers.{name}"), problem.detail(fix)));
            false
        }
        None if !loaded.is_sound(&["producers"]) => false,
        None => {
            let names: Vec<_> = producers.keys().map(String::as_str).collect();
            let suggestion = suggestion(name, &names, "there are");
            problems.push(
                Problem::new(format!("there is no producer `{name}` under `producers:`{suggestion}"))
                    .at(check.place())
                    .detail(format!(
                        "or add it: `{name}: {{ group: a-group-of-this-application, transaction: true }}`"
                    )),
            );
            false
        }
    }
}

/// At the place where the file says `key`, if it does.
pub(super) fn at_place(loaded: &LoadedConfig, key: &str, problem: Problem) -> Problem {
    match loaded.place_of(key) {
        Some(place) => problem.at(place),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::config::Config;
    use crate::listener::{FromMessage, Needs, State};
    use crate::message::MessageExt;
    use crate::producer::{CheckArguments, Transaction};

    const fn check(name: &'static str, line: u32, producer: &'static str) -> TransactionDef {
        TransactionDef {
            name,
            file: "src/main.rs",
            line,
            producer,
            arguments: CheckArguments::new(
                &[<&MessageExt as FromMessage<'_>>::ARGUMENT, <State<u32> as FromMessage<'_>>::ARGUMENT],
                CheckArguments::and(Needs::NONE, <&MessageExt as FromMessage<'_>>::ARGUMENT),
            ),
            call: |_| Box::pin(async { Ok(Transaction::Commit) }),
        }
    }

    fn planned(yaml: &str, annotated: &[&'static TransactionDef], state: u32) -> Result<Vec<String>, String> {
        let loaded = Config::from_yaml(yaml).map_err(|errors| errors.to_string())?;
        let mut values = StateMap::default();
        values.insert(state);
        let checks = Checks { annotated: annotated.to_vec(), by_hand: Vec::new() };
        let mut problems = ConfigErrors::new();
        let planned = plan(&loaded, checks, Some(&Arc::new(values)), &mut problems);
        problems.into_result().map_err(|errors| errors.to_string())?;
        Ok(planned.into_iter().map(|(producer, check)| format!("{producer}: {}", check.place())).collect())
    }

    #[test]
    fn each_producer_of_transactions_gets_its_check() {
        static ORDERS: TransactionDef = check("app::orders", 1, "orders");
        static BILLS: TransactionDef = check("app::bills", 2, "${BILLS:bills}");
        let yaml = "name_servers: a:1\nproducers:\n  orders: { group: o, transaction: true }\n  bills: { group: b, transaction: true }\n  plain: {}\n";
        let planned = planned(yaml, &[&BILLS, &ORDERS], 7).unwrap();
        assert_eq!(planned, ["bills: app::bills (src/main.rs:2)", "orders: app::orders (src/main.rs:1)"]);
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        static ORDERS: TransactionDef = check("app::orders", 1, "orders");
        static TWICE: TransactionDef = check("app::twice", 2, "orders");
        static MISSPELT: TransactionDef = check("app::misspelt", 3, "order");
        static UNKNOWN: TransactionDef = check("app::unknown", 4, "${nothing}");
        static PLAIN: TransactionDef = check("app::plain", 5, "plain");
        let yaml = "name_servers: a:1\nproducers:\n  orders: { group: o, transaction: true }\n  bills: { group: b, transaction: true }\n  plain: {}\n";
        let problems = planned(yaml, &[&ORDERS, &TWICE, &MISSPELT, &UNKNOWN, &PLAIN], 7).unwrap_err();
        assert_snapshot!(problems, @r#"
        rocketmq cannot start: 5 problems

          app::unknown (src/main.rs:4)  `${nothing}` is not set and has no default
                set the environment variable nothing, or a key nothing under `vars:`
          the producer `orders` has two checks
                app::orders (src/main.rs:1)
                app::twice (src/main.rs:2)
                a producer has one, which looks at what the message is about; give the others producers of their own
          app::misspelt (src/main.rs:3)  there is no producer `order` under `producers:`; did you mean `orders`?
                or add it: `order: { group: a-group-of-this-application, transaction: true }`
          <yaml>:5  the check app::plain (src/main.rs:5) is for a producer without transactions
                say so under `producers:`: `plain: { group: a-group-of-this-application, transaction: true }`
          <yaml>:4  producers.bills.transaction: the producer has no check to tell brokers what has become of its transactions
                annotate one: #[rocketmq::transaction(producer = "bills")]
                if it is in another crate, add `use that_crate as _;` to main.rs: a crate that is not named is not linked

        nothing was started
        "#);
    }

    #[test]
    fn state_that_a_check_takes_has_to_be_there() {
        static ORDERS: TransactionDef = check("app::orders", 1, "orders");
        let missing = ORDERS.missing_state(&StateMap::default());
        assert_eq!(missing.iter().map(ToString::to_string).collect::<Vec<_>>(), ["u32"]);
    }
}
