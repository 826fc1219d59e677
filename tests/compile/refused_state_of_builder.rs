//! What is given to a builder has to be state for all threads: one error says all of it, at the value.

#![allow(unused)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use rocketmq::{App, Next, State, testing};

struct NoClone;

fn of_one_thread() {
    App::builder().state(Rc::new(1));
}

fn of_one_thread_inside() {
    App::builder().state(Arc::new(RefCell::new(1)));
}

fn no_clone() {
    App::builder().state(NoClone);
}

fn made_later() {
    App::builder().state_with(|producers| Ok(Rc::new(1)));
}

fn around() {
    App::builder().around_with_state(|_: State<Rc<u32>>, delivery, next: Next| next.run(delivery));
}

fn in_a_test() {
    testing::App::builder().state(Rc::new(1));
}

fn main() {}
