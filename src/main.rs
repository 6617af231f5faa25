//! The command `stillhere`.

fn main() {}
