//! `/api/apps/{app}/drains`: manages and tests an app's drains.

pub(crate) mod manage;
mod model;
pub(crate) mod service;
pub(crate) mod status;
