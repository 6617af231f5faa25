//! The command `stillhere-load`.

fn main() {}
