//! The integration suite: the real binary, real processes, real sockets.
//!
//! Each test makes a [`world::World`] of its own. Started as root, everything in a world runs as an ordinary
//! user; the test process only watches. A test that lacks something names itself through [`skip::skip`].
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, and nothing here is an interface"
)]

mod activation;
mod advice;
mod asking;
mod attacks;
mod audit;
mod cage;
mod caged;
mod chain;
mod client;
mod commands;
mod config_faults;
mod crash;
mod damage;
mod disk;
mod doctor;
mod documentation;
mod entries;
mod faults;
mod honest;
mod keychain;
mod keychain_vault;
#[allow(dead_code)]
mod keyring;
mod keys;
mod kills;
mod lifecycle;
mod limits;
mod locking;
mod model;
mod moving;
mod operator;
mod policy_review;
mod processes;
mod quickstart;
mod records;
mod reference;
mod rekey;
mod rotation;
mod salvage;
mod sealed_policy;
mod sentences;
mod silent;
mod skip;
mod strangers;
mod strict;
mod tools;
mod transcripts;
mod ui;
mod unknown;
mod vault;
mod verify;
mod walkthrough;
mod world;
