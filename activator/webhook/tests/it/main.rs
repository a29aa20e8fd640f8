//! Reviews as the API server sends them, and what becomes of the objects.

#![cfg(test)]

mod golden;
mod kinds;
mod pods;
mod properties;
mod support;
