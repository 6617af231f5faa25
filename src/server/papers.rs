//! What packages bring along besides the program: completions for shells, and the manual page, both made from the
//! command line itself.

use clap::CommandFactory as _;

use super::flags::CommandLine;

/// Shells for which there are completions.
pub use clap_complete::Shell;

/// A script that completes the command line in `shell`.
#[must_use]
pub fn completions(shell: Shell) -> String {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "stillhere", &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// The manual page: the command and, after it, each of its own commands.
///
/// # Panics
///
/// Never: memory takes whatever is written.
#[must_use]
pub fn manual() -> String {
    let mut out = Vec::new();
    let mut command = CommandLine::command();
    command.build();
    let man = clap_mangen::Man::new(command.clone()).manual("Stillhere");
    let written = man
        .render_title(&mut out)
        .and_then(|()| man.render_name_section(&mut out))
        .and_then(|()| man.render_synopsis_section(&mut out))
        .and_then(|()| man.render_description_section(&mut out))
        .and_then(|()| man.render_options_section(&mut out));
    written.expect("memory takes whatever is written");
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        let man = clap_mangen::Man::new(subcommand.clone());
        let name = subcommand.get_bin_name().unwrap_or_default().to_uppercase();
        out.extend_from_slice(format!(".SH {name}\n").as_bytes());
        let written =
            man.render_synopsis_section(&mut out).and_then(|()| man.render_description_section(&mut out)).and_then(
                |()| if subcommand.get_arguments().count() > 0 { man.render_options_section(&mut out) } else { Ok(()) },
            );
        written.expect("memory takes whatever is written");
    }
    String::from_utf8_lossy(&out).into_owned()
}
