//! The project's own files, as text to be checked.
//!
//! The surprising idea: Rust is looked at with comments and literals blanked out ([`code_only`]), so
//! that a rule about code never trips over prose about the rule.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the project.
#[derive(Debug)]
pub(crate) struct File {
    /// Relative to the project's root, with `/` between its pieces.
    pub(crate) path: String,
    /// What it says.
    pub(crate) text: String,
}

impl File {
    /// Whether it is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is only ever compiled for tests, benchmarks or fuzzing.
    pub(crate) fn is_test(&self) -> bool {
        ["tests/", "benches/", "fuzz/"].iter().any(|folder| self.path.starts_with(folder))
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
    }

    /// The lines of code, numbered from 1, without comments and literals.
    pub(crate) fn code_lines(&self) -> Vec<(usize, String)> {
        code_only(&self.text).lines().map(str::to_owned).enumerate().map(|(at, line)| (at + 1, line)).collect()
    }
}

/// Where the project stands.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One file.
#[track_caller]
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All text files of the project below `folder` (`""`: everything), in order of path. What tools build or
/// download is left out.
pub(crate) fn files(folder: &str) -> Vec<File> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "nothing in {folder:?}");
    found
}

fn collect(folder: &Path, found: &mut Vec<File>) {
    const SKIPPED: [&str; 6] = ["target", "node_modules", ".git", "stillhere-data", "artifacts", "corpus"];
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().expect("names of files are UTF-8");
        if SKIPPED.contains(&name) {
            continue;
        }
        if path.is_dir() {
            collect(&path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
            found.push(File { path, text });
        }
    }
}

/// `text` with every comment and every string or character literal turned into spaces; lines stay.
pub(crate) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end == at {
            // A word is passed whole, so that the `r` of `for` opens no raw string.
            at += word_bytes(&bytes[at..]).max(1);
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole literals were blanked, so no character was cut")
}

fn word_bytes(rest: &[u8]) -> usize {
    rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count()
}

/// Where the comment or literal that starts at `at` ends; `at` if none starts there.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let length = if rest.starts_with(b"//") {
        rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
    } else if rest.starts_with(b"/*") {
        block_comment_bytes(rest)
    } else if let Some(length) = raw_string_bytes(rest) {
        length
    } else if rest.starts_with(b"\"") {
        quoted_bytes(rest, b'"')
    } else if rest.starts_with(b"b\"") || rest.starts_with(b"c\"") {
        1 + quoted_bytes(&rest[1..], b'"')
    } else if rest.starts_with(b"'") && is_char_literal(rest) {
        quoted_bytes(rest, b'\'')
    } else {
        0
    };
    at + length
}

fn block_comment_bytes(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of `r"…"`, `r#"…"#`, `br"…"`, if one starts here.
fn raw_string_bytes(rest: &[u8]) -> Option<usize> {
    let prefix = if rest.starts_with(b"br") { 2 } else { usize::from(rest.starts_with(b"r")) };
    let hashes = rest[prefix..].iter().take_while(|&&byte| byte == b'#').count();
    if prefix == 0 || rest.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let body = prefix + hashes + 1;
    let end = rest[body..].windows(close.len()).position(|window| window == close)?;
    Some(body + end + close.len())
}

fn quoted_bytes(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Tells `'a'` from the lifetime `'a`.
fn is_char_literal(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(byte) if byte.is_ascii() => rest.get(2) == Some(&b'\''),
        Some(_) => true,
        None => false,
    }
}

#[test]
fn code_without_literals() {
    #[track_caller]
    fn check(text: &str, code: &str) {
        assert_eq!(code_only(text), code);
    }
    check("a // b\nc", "a     \nc");
    check("a /* b /* c */ d */ e", "a                   e");
    check(r#"f("x\"y") + 'z' + '\''"#, "f(      ) +     +     ");
    check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
    check("r#\"a\"b\"# c", "         c");
    check("br\"a\" for \"x\"", "      for    ");
    check("b\"ab\" x 'é' y", "      x      y");
}
