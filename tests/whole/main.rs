//! The whole, through its public doors: the binary, HTTP, kubectl. A file per promise.

mod cli;
mod demo;
mod logs;
mod support;
mod up;
