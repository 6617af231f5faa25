//! A JSON document as single values with their paths, read from its beginning to its end.

use std::io::Read;

use super::client::Refused;
use crate::base::limits::{DEPTH_MAX, MESSAGE_BYTES_MAX};

/// Room for one value.
const VALUE_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// One value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// Where it stands: names as they are inside of JSON strings, joined by slashes.
    pub(super) path: Vec<u8>,
    /// JSON.
    pub(super) value: Vec<u8>,
}

/// Reads values.
pub(super) struct Leaves<R> {
    from: R,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    taken_bytes: u64,
    /// The objects and arrays that are open.
    open: Vec<Level>,
    path: Vec<u8>,
    is_begun: bool,
}

struct Level {
    is_array: bool,
    /// Members so far.
    count: usize,
    /// Where the path of this level ends.
    path_end: usize,
    /// `.value` or `.sv`, with its name.
    special: Option<Vec<u8>>,
    priority: Option<Vec<u8>>,
    /// Something is stored below.
    has_children: bool,
}

type Read1<T> = Result<T, Refused>;

impl<R: Read> Leaves<R> {
    pub(super) fn new(from: R) -> Self {
        Self {
            from,
            buffer: vec![0; 256 * 1024],
            at: 0,
            filled: 0,
            taken_bytes: 0,
            open: Vec::new(),
            path: Vec::new(),
            is_begun: false,
        }
    }

    /// How much of the file is read.
    pub(super) const fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// The next value; `None` at the end of the document.
    pub(super) fn next(&mut self) -> Read1<Option<Leaf>> {
        loop {
            if self.open.is_empty() {
                if self.is_begun {
                    return match self.peek_token()? {
                        None => Ok(None),
                        Some(_) => Err(self.bad("something stands behind the document")),
                    };
                }
                self.is_begun = true;
                if let Some(leaf) = self.value()? {
                    return Ok(Some(leaf));
                }
                continue;
            }
            if let Some(leaf) = self.member()? {
                return Ok(Some(leaf));
            }
        }
    }

    /// One step within the innermost object or array.
    fn member(&mut self) -> Read1<Option<Leaf>> {
        let level = self.open.last().expect("one is open");
        let (is_array, count, path_end) = (level.is_array, level.count, level.path_end);
        self.path.truncate(path_end);
        let end = if is_array { b']' } else { b'}' };
        let mut token = self.token()?;
        if token == end {
            return Ok(self.close());
        }
        if count > 0 {
            if token != b',' {
                return Err(self.bad("a comma is missing"));
            }
            token = self.token()?;
        }
        if is_array {
            self.at -= 1;
            self.taken_bytes -= 1;
            self.enter(count.to_string().as_bytes());
            return self.value();
        }
        if token != b'"' {
            return Err(self.bad("a name is missing"));
        }
        let mut name = Vec::new();
        self.string(&mut name)?;
        if self.token()? != b':' {
            return Err(self.bad("a colon is missing"));
        }
        match name.as_slice() {
            b".priority" => {
                let priority = self.raw_value()?;
                self.level().priority = Some(priority).filter(|priority| priority != b"null");
                self.level().count += 1;
                Ok(None)
            }
            b".value" | b".sv" => {
                let mut special = b"\"".to_vec();
                special.extend_from_slice(&name);
                special.extend_from_slice(b"\":");
                special.extend(self.raw_value()?);
                self.level().special = Some(special);
                self.level().count += 1;
                Ok(None)
            }
            _ => {
                self.check_name(&name)?;
                self.enter(&name);
                self.value()
            }
        }
    }

    fn level(&mut self) -> &mut Level {
        self.open.last_mut().expect("one is open")
    }

    /// Goes one name down.
    fn enter(&mut self, name: &[u8]) {
        self.level().count += 1;
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    /// A name must not turn into two on its way into a path.
    fn check_name(&self, name: &[u8]) -> Read1<()> {
        let is_escaped = name.contains(&b'\\');
        let mut quoted = vec![b'"'];
        quoted.extend_from_slice(name);
        quoted.push(b'"');
        let plain: Option<String> = if is_escaped { serde_json::from_slice(&quoted).ok() } else { None };
        let is_bad = match &plain {
            Some(plain) => plain.contains('/'),
            None => is_escaped || name.contains(&b'/'),
        };
        if is_bad || name.is_empty() {
            return Err(self.bad("a name is empty, or has a slash in it"));
        }
        Ok(())
    }

    /// A value begins: a leaf, or something that is now open.
    fn value(&mut self) -> Read1<Option<Leaf>> {
        let first = self.token()?;
        if matches!(first, b'{' | b'[') {
            if self.open.len() > DEPTH_MAX {
                return Err(self.bad("it is nested too deeply"));
            }
            self.open.push(Level {
                is_array: first == b'[',
                count: 0,
                path_end: self.path.len(),
                special: None,
                priority: None,
                has_children: false,
            });
            return Ok(None);
        }
        self.at -= 1;
        self.taken_bytes -= 1;
        let value = self.raw_value()?;
        if value == b"null" && !self.open.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.leaf(value)))
    }

    fn leaf(&mut self, value: Vec<u8>) -> Leaf {
        self.open.iter_mut().for_each(|level| level.has_children = true);
        Leaf { path: self.path.clone(), value }
    }

    /// The innermost object or array ends.
    fn close(&mut self) -> Option<Leaf> {
        let Level { special, priority, has_children, .. } = self.open.pop()?;
        match (special, priority) {
            (Some(special), priority) => {
                let mut value = vec![b'{'];
                value.extend(special);
                if let Some(priority) = priority {
                    value.extend_from_slice(b",\".priority\":");
                    value.extend(priority);
                }
                value.push(b'}');
                Some(self.leaf(value))
            }
            // What has no children has no priority either. It comes after the children, as it must.
            (None, Some(priority)) if has_children => {
                let mut path = self.path.clone();
                path.extend_from_slice(if path.is_empty() { b".priority" } else { b"/.priority" });
                Some(Leaf { path, value: priority })
            }
            (None, _) => None,
        }
    }

    /// A value as it stands in the text.
    fn raw_value(&mut self) -> Read1<Vec<u8>> {
        let mut value = Vec::new();
        let mut depth = 0_usize;
        loop {
            let byte = self.token()?;
            value.push(byte);
            match byte {
                b'"' => {
                    self.string(&mut value)?;
                    value.push(b'"');
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 0 => depth -= 1,
                b',' | b':' if depth > 0 => {}
                byte if byte.is_ascii_alphanumeric() || b"+-.".contains(&byte) => {
                    while let Some(byte) =
                        self.peek()?.filter(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
                    {
                        value.push(byte);
                        self.take();
                    }
                }
                _ => return Err(self.bad("a value is missing")),
            }
            if value.len() > VALUE_BYTES_MAX {
                return Err(self.bad("a value is too long"));
            }
            if depth == 0 {
                return Ok(value);
            }
        }
    }

    /// The rest of a string, without its quotes.
    fn string(&mut self, out: &mut Vec<u8>) -> Read1<()> {
        loop {
            let byte = self.peek()?.ok_or_else(|| self.bad("a string does not end"))?;
            self.take();
            match byte {
                b'"' => return Ok(()),
                b'\\' => {
                    out.push(byte);
                    let escaped = self.peek()?.ok_or_else(|| self.bad("a string does not end"))?;
                    self.take();
                    out.push(escaped);
                }
                _ => out.push(byte),
            }
            if out.len() > VALUE_BYTES_MAX {
                return Err(self.bad("a string is too long"));
            }
        }
    }

    /// The next byte that is not blank.
    fn token(&mut self) -> Read1<u8> {
        let byte = self.peek_token()?.ok_or_else(|| self.bad("it ends too early"))?;
        self.take();
        Ok(byte)
    }

    fn peek_token(&mut self) -> Read1<Option<u8>> {
        loop {
            match self.peek()? {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.take(),
                other => return Ok(other),
            }
        }
    }

    fn peek(&mut self) -> Read1<Option<u8>> {
        if self.at == self.filled {
            // One byte stays, so that a step back is always possible.
            let last = if self.filled > 0 { self.buffer[self.filled - 1] } else { b' ' };
            self.buffer[0] = last;
            self.filled = 1 + self.from.read(&mut self.buffer[1..])?;
            self.at = 1;
            if self.filled == 1 {
                return Ok(None);
            }
        }
        Ok(Some(self.buffer[self.at]))
    }

    const fn take(&mut self) {
        self.at += 1;
        self.taken_bytes += 1;
    }

    const fn bad(&self, what: &'static str) -> Refused {
        Refused::Json(self.taken_bytes, what)
    }
}
