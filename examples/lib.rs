//! The examples of `rocketmq`: each file beside this one is a lesson of its own.
