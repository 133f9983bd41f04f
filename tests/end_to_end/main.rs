//! End-to-end tests through the public interfaces: the binary, HTTP and kubectl.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod access;
mod apps;
mod check;
mod cli;
mod cluster;
mod demo;
mod descriptors;
mod drains;
#[path = "../support/emulator.rs"]
mod emulator;
mod examples;
mod gigalixir;
mod image;
mod kubectl_apply;
mod kubernetes_api;
mod logs;
mod manifests;
mod monitoring;
#[path = "../support/name_server.rs"]
mod name_server;
mod openapi;
mod permissions;
mod projects;
mod pypi;
mod reference;
mod replicas;
mod sinks;
mod start_errors;
mod subscriptions;
mod support;
mod up;
