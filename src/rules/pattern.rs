//! Regular expressions of rules: their own dialect, run by the `regex` crate.
//!
//! The original compiles them to a finite automaton with a grammar of its own, and so do we: no
//! captures, no look-around, no back references, time linear in the text. The surprising idea: that
//! grammar reads the first character of a branch literally, whatever it is, so `(?:ab)` means the text
//! `?:ab`, and `(a|)` is a mistake because the `)` is eaten. Where people probably mean something else
//! there is a warning.

use std::fmt::Write as _;

use regex::{Regex, RegexBuilder};

use super::limits::{AUTOMATON_BYTES_MAX, PATTERN_BYTES_MAX, REPEAT_MAX};

/// A compiled regular expression, and what should be looked at in it.
#[derive(Debug)]
pub(super) struct Pattern {
    pub regex: Regex,
    pub warnings: Vec<String>,
}

/// Compiles what stands between the slashes. The mistake is the whole text for the user.
pub(super) fn compile(source: &str, ignores_case: bool) -> Result<Pattern, String> {
    let illegal = |why: &str| format!("Illegal regular expression, {why}");
    if source.is_empty() {
        return Err(illegal("it is empty"));
    }
    if source.len() > PATTERN_BYTES_MAX {
        return Err(illegal("it is too long"));
    }
    let (body, is_anchored_left, is_anchored_right) = anchors(source);
    let offset = usize::from(is_anchored_left);
    let characters = body.chars().collect();
    let mut reader =
        Reader { characters, at: 0, offset, depth: 0, ignores_case, out: String::new(), warnings: Vec::new() };
    reader.out.push_str(if is_anchored_left { "^(?:" } else { "(?:" });
    // An empty body is the empty text: `/^$/`.
    if !body.is_empty() {
        reader.branches().map_err(|why| illegal(&why))?;
        if reader.at < reader.characters.len() {
            return Err(illegal(&format!("end-of-string expected at position {}", reader.at + offset)));
        }
    }
    reader.out.push_str(if is_anchored_right { ")$" } else { ")" });
    let regex = RegexBuilder::new(&reader.out)
        .size_limit(AUTOMATON_BYTES_MAX)
        .dfa_size_limit(AUTOMATON_BYTES_MAX)
        .build()
        .map_err(|_| illegal("it is too large"))?;
    Ok(Pattern { regex, warnings: reader.warnings })
}

/// Takes the anchors off. `^` counts only as the first character, `$` only as the last.
fn anchors(source: &str) -> (&str, bool, bool) {
    let (body, is_anchored_left) = source.strip_prefix('^').map_or((source, false), |rest| (rest, true));
    let Some(rest) = body.strip_suffix('$') else {
        return (body, is_anchored_left, false);
    };
    let backslashes = rest.bytes().rev().take_while(|byte| *byte == b'\\').count();
    let is_escaped = backslashes % 2 == 1;
    if is_escaped { (body, is_anchored_left, false) } else { (rest, is_anchored_left, true) }
}

/// Inclusive ranges of characters.
type Ranges = Vec<(char, char)>;

const DIGITS: &[(char, char)] = &[('0', '9')];
const WORDS: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
const SPACES: &[(char, char)] = &[('\t', '\n'), ('\r', '\r'), (' ', ' ')];

struct Reader {
    characters: Vec<char>,
    at: usize,
    /// Characters taken off the front: positions count from there.
    offset: usize,
    depth: u32,
    ignores_case: bool,
    /// The same expression as the `regex` crate reads it.
    out: String,
    warnings: Vec<String>,
}

/// Levels of groups; the limit on the length of a pattern is far above it.
const GROUPS_MAX: u32 = 100;

impl Reader {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        let is_next = self.peek() == Some(wanted);
        self.at += usize::from(is_next);
        is_next
    }

    fn next(&mut self) -> Result<char, String> {
        let next = self.peek().ok_or("unexpected end-of-string")?;
        self.at += 1;
        Ok(next)
    }

    fn expected(&self, what: &str) -> String {
        format!("{what} expected at position {}", self.at + self.offset)
    }

    /// `a|b|…`
    fn branches(&mut self) -> Result<(), String> {
        loop {
            self.sequence()?;
            if !self.take('|') {
                return Ok(());
            }
            self.out.push('|');
        }
    }

    /// Items in a row, at least one: the first is taken whatever it is.
    fn sequence(&mut self) -> Result<(), String> {
        if let Some(first @ ('?' | '*' | '+' | '{' | '|' | ')')) = self.peek() {
            self.warnings.push(format!("'{first}' at the start of a group or branch means the character itself"));
        }
        loop {
            self.repetition()?;
            if matches!(self.peek(), None | Some(')' | '|')) {
                return Ok(());
            }
        }
    }

    /// One item and how often: `?`, `*`, `+`, `{n}`, `{n,}`, `{n,m}`, again and again.
    fn repetition(&mut self) -> Result<(), String> {
        let start = self.out.len();
        self.item()?;
        while let Some(mark @ ('?' | '*' | '+' | '{')) = self.peek() {
            self.at += 1;
            // A group of its own: what looks lazy or possessive elsewhere is a repetition here.
            self.out.insert_str(start, "(?:");
            self.out.push(')');
            if mark == '{' {
                self.count()?;
            } else {
                self.out.push(mark);
            }
        }
        Ok(())
    }

    /// `n}`, `n,}` or `n,m}`
    fn count(&mut self) -> Result<(), String> {
        let low = self.integer()?.ok_or_else(|| self.expected("integer"))?;
        let has_high = self.take(',');
        let high = if has_high { self.integer()? } else { Some(low) };
        if !self.take('}') {
            return Err(format!("expected '}}' at position {}", self.at + self.offset));
        }
        if high.is_some_and(|high| high < low) {
            return Err(format!("{{{low},{}}} is out of order", high.unwrap_or(low)));
        }
        match high {
            Some(high) => write!(self.out, "{{{low},{high}}}"),
            None => write!(self.out, "{{{low},}}"),
        }
        .expect("a String takes all text");
        Ok(())
    }

    fn integer(&mut self) -> Result<Option<u32>, String> {
        let mut value = None;
        while let Some(digit) = self.peek().and_then(|next| next.to_digit(10)) {
            self.at += 1;
            let sum = value.unwrap_or(0) * 10 + digit;
            if sum > REPEAT_MAX {
                return Err(format!("repetition of more than {REPEAT_MAX}"));
            }
            value = Some(sum);
        }
        Ok(value)
    }

    fn item(&mut self) -> Result<(), String> {
        match self.peek() {
            Some('.') => {
                self.at += 1;
                self.out.push_str("(?s:.)");
                Ok(())
            }
            Some('(') => self.group(),
            Some('[') => self.class(),
            Some(anchor @ ('^' | '$')) => {
                let (place, at) = (if anchor == '^' { "first" } else { "last" }, self.at + self.offset);
                Err(format!("'{anchor}' at position {at} is not the {place} character"))
            }
            _ => {
                let mut ranges = Ranges::new();
                self.character(&mut ranges)?;
                self.push_set(&ranges, false);
                Ok(())
            }
        }
    }

    fn group(&mut self) -> Result<(), String> {
        self.at += 1;
        self.depth += 1;
        if self.depth > GROUPS_MAX {
            return Err("too many groups in groups".to_owned());
        }
        self.out.push_str("(?:");
        if !self.take(')') {
            self.branches()?;
            if !self.take(')') {
                return Err(format!("expected ')' at position {}", self.at + self.offset));
            }
        }
        self.out.push(')');
        self.depth -= 1;
        Ok(())
    }

    /// `[…]` or `[^…]`; its first character is taken whatever it is.
    fn class(&mut self) -> Result<(), String> {
        self.at += 1;
        let is_negated = self.take('^');
        let mut ranges = Ranges::new();
        loop {
            self.class_item(&mut ranges)?;
            if matches!(self.peek(), None | Some(']')) {
                break;
            }
        }
        if !self.take(']') {
            return Err(format!("expected ']' at position {}", self.at + self.offset));
        }
        self.push_set(&ranges, is_negated);
        Ok(())
    }

    /// A character, a named set, or a range of characters.
    fn class_item(&mut self, ranges: &mut Ranges) -> Result<(), String> {
        let Some(low) = self.character(ranges)? else {
            return Ok(());
        };
        let is_range = self.peek() == Some('-') && !matches!(self.characters.get(self.at + 1), None | Some(']'));
        if !is_range {
            return Ok(());
        }
        self.at += 1;
        let mut end = Ranges::new();
        match self.character(&mut end)? {
            Some(high) if low <= high => ranges.push((low, high)),
            Some(high) => return Err(format!("range {low}-{high} is out of order")),
            None => return Err("a named set is no end of a range".to_owned()),
        }
        Ok(())
    }

    /// One character, or a named set such as `\d`; adds it to `ranges`. Returns the character, if it
    /// is one.
    fn character(&mut self, ranges: &mut Ranges) -> Result<Option<char>, String> {
        let is_escaped = self.take('\\');
        let character = self.next()?;
        let named = match character {
            _ if !is_escaped => None,
            'd' => Some((DIGITS, false)),
            'w' => Some((WORDS, false)),
            's' => Some((SPACES, false)),
            'D' => Some((DIGITS, true)),
            'W' => Some((WORDS, true)),
            'S' => Some((SPACES, true)),
            _ => None,
        };
        if let Some((set, is_negated)) = named {
            if is_negated {
                ranges.extend(complement(set));
            } else {
                ranges.extend_from_slice(set);
            }
            return Ok(None);
        }
        if is_escaped && character.is_ascii_alphanumeric() {
            self.warnings.push(format!("'\\{character}' means the character '{character}' itself"));
        }
        ranges.push((character, character));
        Ok(Some(character))
    }

    fn push_set(&mut self, ranges: &Ranges, is_negated: bool) {
        self.out.push_str(if is_negated { "[^" } else { "[" });
        for &(low, high) in ranges {
            self.push_range(low, high);
            if !self.ignores_case {
                continue;
            }
            // Only ASCII letters have two cases here: that allows the least.
            if let Some((low, high)) = overlap((low, high), ('a', 'z')) {
                self.push_range(low.to_ascii_uppercase(), high.to_ascii_uppercase());
            }
            if let Some((low, high)) = overlap((low, high), ('A', 'Z')) {
                self.push_range(low.to_ascii_lowercase(), high.to_ascii_lowercase());
            }
        }
        self.out.push(']');
    }

    fn push_range(&mut self, low: char, high: char) {
        write!(self.out, "\\x{{{:x}}}-\\x{{{:x}}}", u32::from(low), u32::from(high)).expect("a String takes all text");
    }
}

fn overlap(a: (char, char), b: (char, char)) -> Option<(char, char)> {
    let (low, high) = (a.0.max(b.0), a.1.min(b.1));
    (low <= high).then_some((low, high))
}

/// All characters that are not in a sorted set of ASCII ranges.
fn complement(set: &[(char, char)]) -> Ranges {
    let ascii = |code: u32| char::from_u32(code).expect("the sets are ASCII");
    let mut ranges = Ranges::new();
    let mut next = 0;
    for &(low, high) in set {
        if u32::from(low) > next {
            ranges.push((ascii(next), ascii(u32::from(low) - 1)));
        }
        next = u32::from(high) + 1;
    }
    ranges.push((ascii(next), char::MAX));
    ranges
}

#[cfg(test)]
mod tests {
    use super::compile;

    /// `subject` after `=` must match, after `!` must not.
    #[track_caller]
    fn check(source: &str, subjects: &[&str]) {
        let pattern = compile(source, false).unwrap();
        check_subjects(&pattern.regex, subjects);
    }

    #[track_caller]
    fn check_subjects(regex: &regex::Regex, subjects: &[&str]) {
        for subject in subjects {
            let (mark, text) = subject.split_at(1);
            assert_eq!(regex.is_match(text), mark == "=", "{} {text:?}", regex.as_str());
        }
    }

    #[track_caller]
    fn check_refused(source: &str, why: &str) {
        let error = compile(source, false).map(|_| source).unwrap_err();
        assert_eq!(error, format!("Illegal regular expression, {why}"), "{source}");
    }

    #[test]
    fn anchors_bind_the_whole() {
        check("a|bc", &["=xay", "=bc", "!b"]);
        check("^a|bc$", &["=a", "=bc", "!ax", "!xbc"]);
        check("^$", &["=", "!x"]);
        check("^", &["=", "=x"]);
        check("^a\\$$", &["=a$", "!a"]);
        check("^a\\\\$", &["=a\\", "!a\\$", "!a"]);
        check("\\^a", &["=^a", "!a"]);
        check("[$^]", &["=$", "!a", "=^"]);
    }

    #[test]
    fn sets_and_ranges() {
        check("^[a-c-]+$", &["=abc-", "!d"]);
        check("^[-a]+$", &["=-a", "!b"]);
        check("^[]a]$", &["=]", "=a", "!b"]);
        check("^[^\\s@]+@[^\\s@]+$", &["=a@b", "!a b@c", "!a@"]);
        check("^[\\d\\-_.]+$", &["=1-2_.", "!\\", "!a"]);
        check("^\\W$", &["=é", "= ", "!a", "!_"]);
        check("^[^\\S]$", &["= ", "!x", "=\r", "!\u{b}"]);
        check("^[+--]$", &["=+", "=,", "=-", "!."]);
    }

    #[test]
    fn repetitions() {
        check("^a{2,3}$", &["!a", "=aa", "=aaa", "!aaaa"]);
        check("^(ab){2}$", &["=abab", "!ab"]);
        check("^a+?$", &["=", "=aa"]);
        check("^a{0}b$", &["=b", "!ab"]);
        check("\\{foo}", &["={foo}"]);
        check("^.$", &["=\n", "=é", "!"]);
    }

    #[test]
    fn the_first_character_of_a_branch_is_taken_literally() {
        check("^(?:ab)$", &["=?:ab", "!ab"]);
        check("^*a$", &["=*a", "!a"]);
        check("^a|+$", &["=+"]);
        check("^()a$", &["=a"]);
        assert_eq!(compile("(?=a)", false).unwrap().warnings.len(), 1);
        assert_eq!(compile("(a)\\b", false).unwrap().warnings.len(), 1);
    }

    #[test]
    fn only_ascii_letters_ignore_case() {
        check_subjects(&compile("^[a-c]é$", true).unwrap().regex, &["=Aé", "=cé", "!AÉ", "!dé"]);
        check_subjects(&compile("^[^a]$", true).unwrap().regex, &["!A", "!a", "=b"]);
        check_subjects(&compile("^K$", true).unwrap().regex, &["=k", "!\u{212a}"]);
    }

    #[test]
    fn mistakes_have_texts() {
        check_refused("^(foo|)$", "expected ')' at position 7");
        check_refused("(a", "expected ')' at position 2");
        check_refused("a)", "end-of-string expected at position 1");
        check_refused("[ab", "expected ']' at position 3");
        check_refused("(^foo$|bar)", "'^' at position 1 is not the first character");
        check_refused("a$b", "'$' at position 1 is not the last character");
        check_refused("a{x}", "integer expected at position 2");
        check_refused("a{3,2}", "{3,2} is out of order");
        check_refused("[b-a]", "range b-a is out of order");
        check_refused("a|", "unexpected end-of-string");
        check_refused("(((a{1000}){1000}){1000})", "it is too large");
        check_refused("a{1001}", "repetition of more than 1000");
    }
}
