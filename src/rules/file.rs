//! The text of a rules file to a tree of rules.
//!
//! JSON with comments, trailing commas, and line breaks and tabs inside strings. The surprising idea:
//! there is no JSON tree in between. The reader knows at each byte what may stand there, compiles each
//! expression as soon as it has read it, and so tells the first mistake of the text, whatever its kind.

use std::collections::BTreeMap;

use super::compile::{self, Scope};
use super::error::{Mistake, RulesError, SEVERAL_WILDCARDS, Warning, line_and_column};
use super::limits::{FILE_BYTES_MAX, LEVELS_MAX, NODES_MAX};
use super::parse::{self, unicode_escape};
use super::ruleset::{Branch, Dialect, Rule, Verb};
use crate::data::Path;
use crate::op::Index;

/// Reads a rules file.
pub(super) fn read(text: &str, dialect: Dialect) -> Result<(Branch, Vec<Warning>), RulesError> {
    let mut reader = Reader { text, at: 0, dialect, nodes: 0, captures: Vec::new(), warnings: Vec::new() };
    let place = |at: usize| line_and_column(text, at);
    match reader.document() {
        Ok(root) => {
            let warnings = reader.warnings.into_iter().map(|warning| {
                let (line, column) = place(warning.at);
                Warning { line, column, text: warning.text.into_owned() }
            });
            Ok((root, warnings.collect()))
        }
        Err(mistake) => {
            let (line, column) = place(mistake.at);
            Err(RulesError { line, column, text: mistake.text.into_owned() })
        }
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    dialect: Dialect,
    nodes: usize,
    /// The `$` names from the root to where we are, and their levels.
    captures: Vec<(String, u8)>,
    warnings: Vec<Mistake>,
}

type Read<T> = Result<T, Mistake>;

const PARSE_ERROR: &str = "Parse error.";
const NO_EXPRESSION: &str = "Invalid rule expression.  Expected 'true', 'false', or an expression string.";
const NO_INDEX: &str = "Invalid indexOn expression. Must be either a string or an array of strings";
const NO_KEY: &str = "String can't contain \".\", \"#\", \"$\", \"/\", \"[\", or \"]\"";

impl Reader<'_> {
    fn document(&mut self) -> Read<Branch> {
        if self.text.len() > FILE_BYTES_MAX {
            return Err(Mistake::new(0, "The rules are too long."));
        }
        // A mark that some editors put in front of the text.
        self.at = if self.text.starts_with('\u{feff}') { 3 } else { 0 };
        self.expect_brace()?;
        let mut root = None;
        let mut is_first = true;
        while let Some((name, at)) = self.next_name(is_first)? {
            match (name.as_str(), &root) {
                ("rules", None) => root = Some(self.branch(0)?),
                ("rules", Some(_)) => return Err(Mistake::new(at, "Duplicate key 'rules'.")),
                (_, None) => return Err(Mistake::new(at, "Expected 'rules' property.")),
                (_, Some(_)) => return Err(Mistake::new(at, format!("Unexpected property '{name}'."))),
            }
            is_first = false;
        }
        let end = self.at - 1;
        self.skip_space()?;
        if self.at < self.text.len() {
            return Err(Mistake::new(self.at, PARSE_ERROR));
        }
        root.ok_or_else(|| Mistake::new(end, "Expected 'rules' property."))
    }

    /// One node of the tree, from its `{` to its `}`.
    fn branch(&mut self, level: usize) -> Read<Branch> {
        self.expect_brace()?;
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(Mistake::new(self.at, "The rules have too many nodes."));
        }
        if level > LEVELS_MAX {
            return Err(Mistake::new(self.at, "The rules are nested too deeply."));
        }
        let mut branch = Branch::default();
        let mut literals = BTreeMap::new();
        let mut has_index = false;
        let mut is_first = true;
        while let Some((name, at)) = self.next_name(is_first)? {
            is_first = false;
            let rule = match name.as_str() {
                ".read" => &mut branch.read,
                ".write" => &mut branch.write,
                ".validate" => &mut branch.validate,
                ".indexOn" if has_index => return Err(duplicate(at, &name)),
                ".indexOn" => {
                    has_index = true;
                    branch.indexes = self.index_on()?;
                    continue;
                }
                _ => {
                    self.child(&mut branch, &mut literals, name, at, level)?;
                    continue;
                }
            };
            if rule.is_some() {
                return Err(duplicate(at, &name));
            }
            let verb = match name.as_str() {
                ".read" => Verb::Read,
                ".write" => Verb::Write,
                _ => Verb::Validate,
            };
            *rule = Some(self.rule(verb, level)?);
        }
        branch.settle(literals);
        Ok(branch)
    }

    /// A child of a node; its name has been read.
    fn child(
        &mut self,
        branch: &mut Branch,
        literals: &mut BTreeMap<Box<str>, Branch>,
        name: String,
        at: usize,
        level: usize,
    ) -> Read<()> {
        self.skip_space()?;
        let value_at = self.at;
        // An unknown name that begins with a dot is taken for a child until it turns out to be one.
        if self.peek() != Some('{') {
            return Err(Mistake::new(value_at, "Expected '{'."));
        }
        let key = name.strip_prefix('$').unwrap_or(&name);
        if key.is_empty() || key.contains(['.', '#', '$', '/', '[', ']']) {
            return Err(Mistake::new(value_at, NO_KEY));
        }
        if !name.starts_with('$') {
            if literals.contains_key(&*name) {
                return Err(duplicate(at, &name));
            }
            let child = self.branch(level + 1)?;
            literals.insert(name.into(), child);
            return Ok(());
        }
        match &branch.wildcard {
            Some((other, _)) if *other == name => return Err(duplicate(at, &name)),
            Some((other, _)) => {
                return Err(Mistake::new(value_at, format!("{SEVERAL_WILDCARDS} ('{other}' and '{name}').")));
            }
            None => {}
        }
        if self.captures.iter().any(|(other, _)| *other == name) {
            return Err(Mistake::new(value_at, format!("Variable '{name}' is already bound above.")));
        }
        let capture_level = u8::try_from(level + 1).expect("levels are limited");
        self.captures.push((name.clone(), capture_level));
        let child = self.branch(level + 1)?;
        self.captures.pop();
        branch.wildcard = Some((name, Box::new(child)));
        Ok(())
    }

    /// The value of `.read`, `.write` or `.validate`.
    fn rule(&mut self, verb: Verb, level: usize) -> Read<Rule> {
        self.skip_space()?;
        let at = self.at;
        let (line, column) = line_and_column(self.text, at);
        for word in ["true", "false"] {
            if self.take_word(word) {
                return Ok(Rule::constant(verb, word == "true", line, column));
            }
        }
        if self.peek() != Some('"') {
            return Err(Mistake::new(at, NO_EXPRESSION));
        }
        let source = self.string()?;
        let scope = Scope {
            verb,
            captures: &self.captures,
            level: u8::try_from(level).expect("levels are limited"),
            dialect: self.dialect,
        };
        let text = self.text;
        let in_file = |mistake: Mistake| Mistake { at: place_in_string(text, at, mistake.at), ..mistake };
        let ast = parse::parse(&source).map_err(in_file)?;
        let compiled = compile::compile(&ast, scope).map_err(in_file)?;
        self.warnings.extend(compiled.warnings.into_iter().map(in_file));
        Ok(Rule { verb, test: compiled.test, survey: compiled.survey, source: source.into(), line, column })
    }

    /// The value of `.indexOn`.
    fn index_on(&mut self) -> Read<Vec<Index>> {
        self.skip_space()?;
        let at = self.at;
        let mut indexes = Vec::new();
        match self.peek() {
            Some('"') => indexes.extend(index(&self.string()?)),
            Some('[') => {
                self.at += 1;
                loop {
                    self.skip_space()?;
                    match self.peek() {
                        Some(']') => break,
                        Some('"') => indexes.extend(index(&self.string()?)),
                        Some(',') => return Err(self.unexpected()),
                        _ => return Err(Mistake::new(at, NO_INDEX)),
                    }
                    self.skip_space()?;
                    match self.peek() {
                        Some(',') => self.at += 1,
                        Some(']') => {}
                        _ => return Err(Mistake::new(self.at, "Expected ',' or ']'.")),
                    }
                }
                self.at += 1;
            }
            _ => return Err(Mistake::new(at, NO_INDEX)),
        }
        Ok(indexes)
    }

    /// The next member's name and where it begins, with the colon behind it; `None` at the `}`, which
    /// is taken.
    fn next_name(&mut self, is_first: bool) -> Read<Option<(String, usize)>> {
        self.skip_space()?;
        if !is_first && self.peek() != Some('}') {
            if self.peek() != Some(',') {
                return Err(if self.peek().is_none() { self.unexpected() } else { self.expected("',' or '}'") });
            }
            self.at += 1;
            self.skip_space()?;
        }
        match self.peek() {
            Some('}') => {
                self.at += 1;
                return Ok(None);
            }
            Some('"') => {}
            Some(_) if is_first => return Err(self.unexpected()),
            _ => return Err(self.expected("'\"'")),
        }
        let at = self.at;
        let name = self.string()?;
        self.skip_space()?;
        if self.peek() != Some(':') {
            return Err(self.expected("':'"));
        }
        self.at += 1;
        Ok(Some((name, at)))
    }

    /// A string, from quote to quote.
    fn string(&mut self) -> Read<String> {
        let start = self.at;
        self.at += 1;
        let mut value = String::new();
        loop {
            match next_character(self.text, self.at) {
                Piece::Character(character, length) => {
                    value.push(character);
                    self.at += length;
                }
                Piece::End => {
                    self.at += 1;
                    return Ok(value);
                }
                Piece::Unfinished => return Err(Mistake::new(start, PARSE_ERROR)),
                Piece::Control => return Err(Mistake::new(self.at, PARSE_ERROR)),
                Piece::Invalid(escaped) => {
                    return Err(Mistake::new(self.at, format!("Invalid escape: '\\{escaped}'")));
                }
            }
        }
    }

    fn expect_brace(&mut self) -> Read<()> {
        self.skip_space()?;
        if self.peek() != Some('{') {
            return Err(self.expected("'{'"));
        }
        self.at += 1;
        Ok(())
    }

    /// Skips white space and comments.
    fn skip_space(&mut self) -> Read<()> {
        loop {
            let rest = &self.text[self.at..];
            let space = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
            let rest = &rest[space..];
            self.at += space;
            let length = if rest.starts_with("//") {
                memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                rest.find("*/").ok_or_else(|| Mistake::new(self.at, PARSE_ERROR))? + 2
            } else {
                return Ok(());
            };
            self.at += length;
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn take_word(&mut self, word: &str) -> bool {
        let rest = &self.text[self.at..];
        let is_word = rest
            .strip_prefix(word)
            .is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'));
        if is_word {
            self.at += word.len();
        }
        is_word
    }

    fn unexpected(&self) -> Mistake {
        let text = self.peek().map_or_else(|| PARSE_ERROR.to_owned(), |next| format!("Unexpected '{next}'."));
        Mistake::new(self.at, text)
    }

    fn expected(&self, what: &str) -> Mistake {
        Mistake::new(self.at, format!("Expected {what}."))
    }
}

/// What comes next in a string.
enum Piece {
    /// A character, and the bytes that stand for it.
    Character(char, usize),
    /// The closing quote.
    End,
    /// The end of the text.
    Unfinished,
    /// A character that must be escaped.
    Control,
    /// A backslash before this.
    Invalid(String),
}

fn next_character(text: &str, at: usize) -> Piece {
    let rest = &text[at..];
    let mut characters = rest.chars();
    match characters.next() {
        None => Piece::Unfinished,
        Some('"') => Piece::End,
        Some('\\') => match characters.next() {
            Some('n') => Piece::Character('\n', 2),
            Some('r') => Piece::Character('\r', 2),
            Some('t') => Piece::Character('\t', 2),
            Some('b') => Piece::Character('\u{8}', 2),
            Some('f') => Piece::Character('\u{c}', 2),
            Some(same @ ('\\' | '"' | '/')) => Piece::Character(same, 2),
            Some('u') => match unicode_escape(rest) {
                Some((character, length)) => Piece::Character(character, length),
                None => Piece::Invalid("u".to_owned()),
            },
            Some(other) => Piece::Invalid(other.to_string()),
            None => Piece::Unfinished,
        },
        Some(control) if control < ' ' && !matches!(control, '\n' | '\r' | '\t') => Piece::Control,
        Some(character) => Piece::Character(character, character.len_utf8()),
    }
}

/// Where in the file the byte `offset` of a string's value stands; the string begins at `start`.
fn place_in_string(text: &str, start: usize, offset: usize) -> usize {
    let mut at = start + 1;
    let mut passed = 0;
    while passed < offset {
        let Piece::Character(character, length) = next_character(text, at) else { break };
        at += length;
        passed += character.len_utf8();
    }
    at
}

fn duplicate(at: usize, name: &str) -> Mistake {
    Mistake::new(at, format!("Duplicate key '{name}'."))
}

/// What one text of `.indexOn` names; a text that names no place names nothing.
fn index(text: &str) -> Option<Index> {
    match text {
        ".value" => Some(Index::Value),
        ".priority" => Some(Index::Priority),
        ".key" => Some(Index::Key),
        _ => Path::parse(text).ok().filter(|path| !path.is_root()).map(Index::Child),
    }
}
