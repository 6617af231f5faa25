//! Rules of the house that a tool can check and the compiler does not.

use crate::source::{self, File};

/// Rooms that take values and give values: what they may not even name.
const IMPURE: [&str; 12] = [
    "std::fs",
    "std::thread",
    "std::time",
    "std::process",
    "std::env",
    "std::os",
    "std::io::std",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    ".await",
    "RandomState::new",
];

/// Rooms at the edge, where the outside world may be touched.
const EDGE: [&str; 5] = ["src/runtime/", "src/gateway/", "src/server/", "src/main.rs", "src/sim/"];

#[track_caller]
fn none_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Calls `judge` with each line of code in which `words` has a part.
fn find(files: &[File], words: &[&str], wrong: &mut Vec<String>) {
    for file in files.iter().filter(|file| file.is_rust()) {
        for (number, line) in file.code_lines() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
}

#[test]
fn nothing_unfinished_lands() {
    let mut wrong = Vec::new();
    find(&source::files(""), &["todo!", "unimplemented!", "dbg!", "#[ignore", "#[should_panic"], &mut wrong);
    // Written in pieces, so that this file does not find itself.
    let marks = [["FIX", "ME"].concat(), ["X", "XX:"].concat(), ["TO", "DO:"].concat()];
    for file in source::files("") {
        for mark in marks.iter().filter(|mark| file.text.contains(*mark)) {
            wrong.push(format!("{}: {mark}", file.path));
        }
    }
    none_wrong(&wrong);
}

#[test]
fn nothing_names_the_machine_it_was_made_on() {
    // Written in pieces, so that this file does not find itself.
    let places = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["/t", "mp/"], ["/opt/", "hosted"]]
        .map(|place| place.concat());
    let mut wrong = Vec::new();
    for file in source::files("") {
        for (number, line) in file.text.lines().enumerate() {
            for place in places.iter().filter(|place| line.contains(*place)) {
                wrong.push(format!("{}:{}: {place}", file.path, number + 1));
            }
        }
    }
    none_wrong(&wrong);
}

#[test]
fn npm_packages_are_named_and_not_addressed() {
    let lock = source::read("tests/e2e/package-lock.json");
    assert!(!lock.contains("\"resolved\""), "the lock file holds download addresses");
    assert!(lock.contains("\"integrity\""), "the lock file holds no checksums");
}

#[test]
fn unsafe_only_in_runtime_and_explained() {
    let mut wrong = Vec::new();
    for file in source::files("").iter().filter(|file| file.is_rust()) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, code) in file.code_lines() {
            let is_used = code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn");
            if !is_used {
                continue;
            }
            if !file.path.starts_with("src/runtime/") {
                wrong.push(format!("{}:{number}: unsafe outside runtime", file.path));
            }
            let above = lines[..number].iter().rev().skip(1).take_while(|line| line.trim().starts_with("//"));
            if !above.into_iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
                wrong.push(format!("{}:{number}: unsafe without a reason", file.path));
            }
        }
    }
    none_wrong(&wrong);
}

#[test]
fn errors_are_not_unwrapped() {
    let mut wrong = Vec::new();
    for file in source::files("").iter().filter(|file| file.is_rust() && !file.is_test()) {
        // Tests stand last in a file.
        let tests_start = file.text.lines().position(|line| line.trim() == "#[cfg(test)]").unwrap_or(usize::MAX);
        for (number, line) in file.code_lines().into_iter().filter(|(number, _)| *number <= tests_start) {
            if line.contains(".unwrap()") || line.contains(".unwrap_err()") {
                wrong.push(format!("{}:{number}: unwrap", file.path));
            }
        }
    }
    none_wrong(&wrong);
}

#[test]
fn core_takes_values_and_gives_values() {
    let core: Vec<File> = source::files("src")
        .into_iter()
        .filter(|file| !EDGE.iter().any(|edge| file.path.starts_with(edge)) && !file.is_test())
        .collect();
    let mut wrong = Vec::new();
    find(&core, &IMPURE, &mut wrong);
    none_wrong(&wrong);
}

#[test]
fn every_document_is_in_the_index() {
    let index = source::read("docs/README.md");
    let mut wrong = Vec::new();
    for file in source::files("docs").iter().filter(|file| file.path.ends_with(".md")) {
        let name = file.path.strip_prefix("docs/").expect("it was found there");
        if name != "README.md" && !index.contains(&format!("({name})")) {
            wrong.push(format!("docs/README.md does not list {name}"));
        }
    }
    none_wrong(&wrong);
}

/// `cargo sim -- 42`: what follows the dashes is for the program, so the alias must not end in dashes of its own.
#[test]
fn verbs_take_their_arguments_after_dashes() {
    let verbs = source::read(".cargo/config.toml");
    let runs: Vec<&str> = verbs.lines().filter(|line| line.contains("\"run ")).collect();
    assert_eq!(runs.len(), 2, "{runs:?}");
    let wrong: Vec<String> = runs.into_iter().filter(|line| line.ends_with("--\"")).map(String::from).collect();
    none_wrong(&wrong);
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for file in source::files("").iter().filter(|file| file.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().expect("splitting gives at least one piece");
            let is_outside = target.is_empty() || target.contains("://") || target.contains(' ');
            if !is_outside && !source::root().join(folder).join(target).exists() {
                wrong.push(format!("{}: nothing at {link}", file.path));
            }
        }
    }
    none_wrong(&wrong);
}

#[test]
fn every_dependency_has_its_reason() {
    let mut wrong = Vec::new();
    for manifest in source::files("").iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        wrong.extend(unreasoned(&manifest.text).into_iter().map(|name| format!("{}: {name}", manifest.path)));
    }
    none_wrong(&wrong);
}

/// The dependencies without a comment on the line above. Our own packages need none.
fn unreasoned(manifest: &str) -> Vec<String> {
    let mut unreasoned = Vec::new();
    let mut is_dependencies = false;
    let mut before = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_dependencies = line.trim_end_matches(']').ends_with("dependencies");
        } else if is_dependencies && line.contains(" = ") && !line.starts_with(['#', ' ']) {
            let is_ours = line.contains("path = ");
            if !is_ours && !before.starts_with('#') {
                unreasoned.push(line.split(" = ").next().expect("splitting gives at least one piece").to_owned());
            }
        }
        before = line;
    }
    unreasoned
}

#[test]
fn reasons_are_looked_for() {
    #[track_caller]
    fn check(manifest: &str, expected: &[&str]) {
        assert_eq!(unreasoned(manifest), expected, "{manifest}");
    }
    check("[dependencies]\n# Why.\na = \"1\"\nb = \"2\"", &["b"]);
    check("[package]\nname = \"x\"\n[dev-dependencies]\nc = { version = \"1\" }", &["c"]);
    check("[dependencies]\nours = { path = \"..\" }", &[]);
}

#[test]
fn tests_that_the_security_page_names_exist() {
    let page = source::read("docs/SECURITY.md");
    let rust: Vec<File> = ["src", "tests"].into_iter().flat_map(source::files).filter(File::is_rust).collect();
    let scripts: Vec<File> =
        source::files("tests/e2e").into_iter().filter(|file| file.path.ends_with(".test.mjs")).collect();
    let mut wrong = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        // In turn outside and inside backquotes, or quotes.
        for name in cell.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() >= 2) {
            if !rust.iter().any(|file| file.text.contains(&format!("fn {name}("))) {
                wrong.push(format!("there is no test {name}"));
            }
        }
        for title in cell.split('"').skip(1).step_by(2) {
            let title = title.trim_end_matches('…');
            if !scripts.iter().any(|file| file.text.contains(title)) {
                wrong.push(format!("there is no test \"{title}\""));
            }
        }
    }
    none_wrong(&wrong);
}
