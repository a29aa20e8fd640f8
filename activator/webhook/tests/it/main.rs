//! Reviews as the API server sends them, and what becomes of the objects.

#![cfg(test)]

mod certificates;
mod cluster;
mod examples;
mod golden;
mod https;
mod kinds;
mod pods;
mod properties;
mod support;
