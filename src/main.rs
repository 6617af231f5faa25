//! The command `stillhere`.

/// What is in use is counted, so that `memory_max` holds.
#[global_allocator]
static ALLOCATOR: stillhere::server::Counted = stillhere::server::Counted;

fn main() -> std::process::ExitCode {
    stillhere::server::main()
}
