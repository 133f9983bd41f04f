//! The whole, through its public doors: the binary, HTTP, kubectl. A file per promise.

mod cli;
mod cluster;
mod demo;
#[path = "../support/emulator.rs"]
mod emulator;
mod gigalixir;
mod logs;
mod replicas;
mod subscriptions;
mod support;
mod up;
