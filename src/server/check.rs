//! `stillhere check`: would `serve` start, and with what.

use std::io::{self, Write};

use super::config::Meaning;
use super::data_dir::DataDir;
use super::place::Problem;
use super::{auth, kernel, rules, tls};

/// Looks at everything on this machine that would keep a server of this configuration from starting.
/// Gives what is allowed in the rules but probably not meant.
///
/// # Errors
///
/// Everything that would.
pub fn check(meaning: &Meaning) -> Result<Vec<Problem>, Vec<Problem>> {
    let config = &meaning.config;
    let origin_of = |name: &str| {
        let line = meaning.lines.iter().find(|line| line.name == name);
        line.expect("every key has its line").origin.clone()
    };
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    match rules::load(config) {
        Ok(rules) => warnings = rules::warnings(config, &rules),
        Err(problem) => problems.push(problem),
    }
    problems.extend(auth::load(&config.auth, config.is_dev).err().unwrap_or_default());
    problems.extend(config.tls.as_ref().and_then(|files| tls::load(files).err()));
    let coaps = config.coaps.as_ref().and_then(|(_, files)| tls::load_for_datagrams(files).err());
    problems.extend(coaps.filter(|problem| !problems.contains(problem)));
    problems.extend(DataDir::check(&config.data).err().map(|reason| Problem::new(origin_of("data"), reason)));
    problems.extend(kernel::check_io_uring().err().map(|reason| Problem::new("machine", reason)));
    if problems.is_empty() { Ok(warnings) } else { Err(problems) }
}

/// Writes what would be in force, one setting a line with its origin, then the warnings.
///
/// # Errors
///
/// `output` cannot be written.
pub fn summarize(meaning: &Meaning, rules_warnings: &[Problem], output: &mut impl Write) -> io::Result<()> {
    let lines = &meaning.lines;
    let width = |of: fn(&super::config::Line) -> &str| lines.iter().map(|line| of(line).len()).max().unwrap_or(0);
    let (name_width, value_width) = (width(|line| &line.name), width(|line| &line.value));
    for line in lines {
        let (name, value, origin) = (&line.name, &line.value, &line.origin);
        writeln!(output, "{name:name_width$}  {value:value_width$}  {origin}")?;
    }
    writeln!(output, "rules: {}", rules::describe(&meaning.config))?;
    let config = &meaning.config;
    if let Ok(loaded) = auth::load(&config.auth, config.is_dev) {
        writeln!(output, "auth: {}", auth::describe(&config.auth, &loaded))?;
    }
    for warning in meaning.warnings.iter().chain(rules_warnings) {
        writeln!(output, "warning: {warning}")?;
    }
    writeln!(output, "ok")
}
