//! Checks of the whole: what no single room can see about itself. One binary, so that it links once.

#![expect(clippy::disallowed_methods, reason = "tests read files and start processes")]

mod cli;
mod dependencies;
mod examples;
mod layers;
mod load;
mod planted;
mod source;
mod tidy;
