//! The command `stillhere`.

fn main() -> std::process::ExitCode {
    stillhere::server::main()
}
