//! Which rules hold: those of the file, or none at all.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::config::Config;
use super::place::Problem;
use super::seam::{self, Remark, Rules};
use crate::base::limits;

/// What holds when there is no file and this is a server to develop against.
const OPEN: &str = r#"{"rules":{".read":true,".write":true}}"#;
/// What holds when there is no file.
const CLOSED: &str = r#"{"rules":{".read":false,".write":false}}"#;

/// Reads and checks the rules that `config` asks for.
///
/// # Errors
///
/// The file cannot be read, or what is in it is no rules: with its line and column.
pub fn load(config: &Config) -> Result<Rules, Problem> {
    let Some(path) = &config.rules else {
        let text = if config.is_dev { OPEN } else { CLOSED };
        return Ok(seam::compile_rules(text, config.rules_dialect).expect("our own rules are sound"));
    };
    let text = read(path).map_err(|error| Problem::new(path.display(), format!("cannot be read: {error}")))?;
    seam::compile_rules(&text, config.rules_dialect).map_err(|remark| at(path, &remark))
}

/// What is accepted in `rules` and probably not meant.
#[must_use]
pub fn warnings(config: &Config, rules: &Rules) -> Vec<Problem> {
    let path = config.rules.as_deref().unwrap_or(Path::new(""));
    rules.warnings.iter().map(|remark| at(path, remark)).collect()
}

fn at(path: &Path, remark: &Remark) -> Problem {
    Problem::new(format!("{}:{}:{}", path.display(), remark.line, remark.column), remark.text.as_str())
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // One more than allowed, so that too much is told from just enough.
    let count = File::open(path)?.take(limits::RULES_BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(count).is_ok_and(|count| count <= limits::RULES_BYTES_MAX) {
        Ok(text)
    } else {
        Err(io::Error::other(format!("it is longer than {} bytes", limits::RULES_BYTES_MAX)))
    }
}

/// Which rules hold, for people.
#[must_use]
pub fn describe(config: &Config) -> String {
    match &config.rules {
        Some(path) => path.display().to_string(),
        None if config.is_dev => "none: everything is allowed (dev)".into(),
        None => "none: everything is denied".into(),
    }
}
