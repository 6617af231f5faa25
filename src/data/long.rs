//! Drafts from texts that are too long to be read in one go.
//!
//! The surprising idea: only what is longer than a piece is read here, a bracket at a time; everything
//! shorter is cut out whole and read like any other text. A step reads at most one piece, so a text of any
//! length never keeps others waiting. Costs: what a piece may be long is looked at twice.

use super::children::Children;
use super::draft::{Draft, Hole, Invalid, Members};
use super::key::Key;
use super::node::Node;
use super::path::{InvalidPath, Location, Path};
use crate::base::limits::{DEPTH_MAX, MERGE_PATHS_MAX, TEXT_BYTES_MAX};
use crate::json;

/// Bytes of the longest container that is read in one step. A string is never cut.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// Bytes of the longest string: as many escapes as it may have bytes.
const STRING_BYTES_MAX: usize = 6 * TEXT_BYTES_MAX + 2;

/// Why a long text is no draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLong {
    /// It is not JSON.
    NotJson,
    /// It is JSON that cannot be stored.
    Data(Invalid),
    /// The name of a place is no path.
    Path(InvalidPath),
    /// It has more than [`MERGE_PATHS_MAX`] places.
    TooManyPlaces,
    /// It should be an object of places.
    NoObject,
}

/// What a long text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Long {
    /// One value.
    Value(Draft),
    /// Places, and what each gets. They may overlap.
    Places(Vec<(Location, Draft)>),
}

/// A long text that is being read.
#[derive(Debug)]
pub struct LongReader {
    text: Vec<u8>,
    at: usize,
    piece_bytes_max: usize,
    /// Levels above.
    depth: usize,
    /// What is open, from the outside in.
    frames: Vec<Frame>,
    /// Holes of the value that is being read, relative to it.
    holes: Vec<Hole>,
    places: Option<Vec<(Location, Draft)>>,
    is_places_open: bool,
    value: Option<Node>,
}

/// A container that is open.
#[derive(Debug)]
enum Frame {
    Array { index: usize, children: Children, awaited: Awaited },
    Object { key: Option<Name>, members: Members, awaited: Awaited },
    Places { place: Option<Location>, awaited: Awaited },
}

/// A member's name.
#[derive(Debug)]
enum Name {
    Key(Key),
    Value,
    Priority,
}

/// What may come next in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// Its first value or name, or its end.
    FirstOrEnd,
    /// A value or a name.
    Next,
    /// The colon behind a name.
    Colon,
    /// The value behind a colon.
    Value,
    /// A comma, or its end.
    CommaOrEnd,
}

impl LongReader {
    /// Reads a value that is to be stored `depth` levels below the root.
    #[must_use]
    pub const fn value(text: Vec<u8>, depth: usize) -> Self {
        Self::new(text, depth, PIECE_BYTES_MAX, None)
    }

    /// Reads an object of places below something that is itself `depth` levels below the root.
    #[must_use]
    pub const fn places(text: Vec<u8>, depth: usize) -> Self {
        Self::new(text, depth, PIECE_BYTES_MAX, Some(Vec::new()))
    }

    pub(super) const fn new(
        text: Vec<u8>,
        depth: usize,
        piece_bytes_max: usize,
        places: Option<Vec<(Location, Draft)>>,
    ) -> Self {
        Self {
            text,
            at: 0,
            piece_bytes_max,
            depth,
            frames: Vec::new(),
            holes: Vec::new(),
            places,
            is_places_open: false,
            value: None,
        }
    }

    /// How long the text is, in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether there is no text.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Reads on for about `bytes_max` bytes. Gives what the text says once all of it is read.
    ///
    /// # Errors
    /// Why it says nothing; then there is nothing more to read.
    pub fn read(&mut self, reader: &mut json::Reader, bytes_max: usize) -> Result<Option<Long>, BadLong> {
        let until = self.at.saturating_add(bytes_max);
        while self.at < until {
            let Some(&byte) = self.text.get(self.at) else { return self.finished().map(Some) };
            if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                self.at += 1;
            } else {
                self.step(byte, reader)?;
            }
        }
        Ok(None)
    }

    fn finished(&mut self) -> Result<Long, BadLong> {
        if !self.frames.is_empty() {
            return Err(BadLong::NotJson);
        }
        if let Some(places) = self.places.take().filter(|_| self.is_places_open) {
            return Ok(Long::Places(places));
        }
        let node = self.value.take().ok_or(BadLong::NotJson)?;
        Ok(Long::Value(Draft::with_holes(node, std::mem::take(&mut self.holes))))
    }

    /// Reads what begins with `byte`, which is no space.
    fn step(&mut self, byte: u8, reader: &mut json::Reader) -> Result<(), BadLong> {
        let Some(frame) = self.frames.last_mut() else {
            if self.value.is_some() || self.is_places_open {
                return Err(BadLong::NotJson);
            }
            return self.begin(byte, reader);
        };
        let (close, awaited) = match frame {
            Frame::Array { awaited, .. } => (b']', awaited),
            Frame::Object { awaited, .. } | Frame::Places { awaited, .. } => (b'}', awaited),
        };
        match (*awaited, byte) {
            (Awaited::FirstOrEnd | Awaited::CommaOrEnd, byte) if byte == close => {
                self.at += 1;
                self.close()
            }
            (Awaited::CommaOrEnd, b',') => {
                *awaited = Awaited::Next;
                self.at += 1;
                Ok(())
            }
            (Awaited::Colon, b':') => {
                *awaited = Awaited::Value;
                self.at += 1;
                Ok(())
            }
            (Awaited::CommaOrEnd | Awaited::Colon, _) => Err(BadLong::NotJson),
            (Awaited::FirstOrEnd | Awaited::Next, b'"') if close == b'}' => self.name(reader),
            (Awaited::FirstOrEnd | Awaited::Next, _) if close == b'}' => Err(BadLong::NotJson),
            (Awaited::FirstOrEnd | Awaited::Next | Awaited::Value, _) => self.item(byte, reader),
        }
    }

    /// The outermost value.
    fn begin(&mut self, byte: u8, reader: &mut json::Reader) -> Result<(), BadLong> {
        if self.places.is_none() {
            return self.item(byte, reader);
        }
        match byte {
            b'{' => {
                self.at += 1;
                self.is_places_open = true;
                self.frames.push(Frame::Places { place: None, awaited: Awaited::FirstOrEnd });
                Ok(())
            }
            // Clients remove everything with it.
            b'n' => {
                self.places = None;
                self.item(byte, reader)
            }
            _ => Err(BadLong::NoObject),
        }
    }

    /// How deep the value is that comes next.
    fn level(&self) -> usize {
        match (self.frames.first(), self.frames.last()) {
            (Some(Frame::Places { place: Some(place), .. }), _) => {
                self.depth + place.path.depth() + self.frames.len() - 1
            }
            (_, Some(Frame::Object { key: Some(Name::Value | Name::Priority), .. })) => {
                self.depth + self.frames.len() - 1
            }
            _ => self.depth + self.frames.len(),
        }
    }

    /// The value that begins with `byte`.
    fn item(&mut self, byte: u8, reader: &mut json::Reader) -> Result<(), BadLong> {
        let Some(bytes) = extent(&self.text[self.at..], self.piece_bytes_max)? else { return self.open(byte) };
        let level = self.level();
        if byte == b'[' && matches!(self.frames.last(), Some(Frame::Object { key: Some(Name::Value), .. })) {
            return Err(BadLong::Data(Invalid::Value));
        }
        let text = &mut self.text[self.at..self.at + bytes];
        self.at += bytes;
        if let Some(Frame::Object { key: Some(Name::Priority), members, awaited }) = self.frames.last_mut() {
            let priority = reader.read(text, Draft::priority_from_json).map_err(|_| BadLong::NotJson)?;
            members.priority = priority.map_err(BadLong::Data)?;
            *awaited = Awaited::CommaOrEnd;
            return Ok(());
        }
        let must_be_priority = self.frames.len() == 1
            && matches!(self.frames.last(), Some(Frame::Places { place: Some(place), .. }) if place.is_priority);
        let draft = reader.read(text, |item| {
            if must_be_priority {
                // As a draft it is a leaf like any other; as a priority it may not be every leaf.
                Draft::priority_from_json(item)?;
            }
            Draft::from_json(item, level)
        });
        let draft = draft.map_err(|_| BadLong::NotJson)?.map_err(BadLong::Data)?;
        let (node, holes) = draft.into_parts();
        let here = self.here();
        self.holes.extend(holes.into_iter().map(|hole| hole.below(&here)));
        self.deliver(node)
    }

    /// Opens a container that is longer than a piece.
    fn open(&mut self, byte: u8) -> Result<(), BadLong> {
        if self.level() >= DEPTH_MAX {
            return Err(BadLong::Data(Invalid::TooDeep));
        }
        match self.frames.last() {
            Some(Frame::Object { key: Some(Name::Value), .. }) => return Err(BadLong::Data(Invalid::Value)),
            Some(Frame::Object { key: Some(Name::Priority), .. }) => return Err(BadLong::Data(Invalid::Priority)),
            Some(Frame::Places { place: Some(place), .. }) if place.is_priority => {
                return Err(BadLong::Data(Invalid::Priority));
            }
            _ => {}
        }
        self.at += 1;
        self.frames.push(if byte == b'[' {
            Frame::Array { index: 0, children: Children::new(), awaited: Awaited::FirstOrEnd }
        } else {
            Frame::Object { key: None, members: Members::default(), awaited: Awaited::FirstOrEnd }
        });
        Ok(())
    }

    /// A member's name.
    fn name(&mut self, reader: &mut json::Reader) -> Result<(), BadLong> {
        let bytes = extent(&self.text[self.at..], self.piece_bytes_max)?.expect("a string is never cut");
        let text = &mut self.text[self.at..self.at + bytes];
        self.at += bytes;
        let depth = self.depth;
        let frame = self.frames.last_mut().expect("names stand in objects");
        let places_count = self.places.as_ref().map_or(0, Vec::len);
        reader
            .read(text, |item| {
                let name = item.as_text().ok_or(BadLong::NotJson)?;
                match frame {
                    Frame::Array { .. } => unreachable!("an array has no names"),
                    Frame::Object { key, awaited, members } => {
                        *key = Some(members.name(name).map_err(BadLong::Data)?);
                        *awaited = Awaited::Colon;
                    }
                    Frame::Places { place, awaited } => {
                        let location = Location::parse(name).map_err(BadLong::Path)?;
                        if depth + location.path.depth() > DEPTH_MAX {
                            return Err(BadLong::Path(InvalidPath::TooDeep));
                        }
                        if places_count >= MERGE_PATHS_MAX {
                            return Err(BadLong::TooManyPlaces);
                        }
                        (*place, *awaited) = (Some(location), Awaited::Colon);
                    }
                }
                Ok(())
            })
            .map_err(|_| BadLong::NotJson)?
    }

    /// The end of the innermost container.
    fn close(&mut self) -> Result<(), BadLong> {
        let here = self.here_above();
        match self.frames.pop().expect("something is open") {
            Frame::Array { mut children, .. } => {
                children.shrink();
                self.deliver(Node::branch(children))
            }
            Frame::Object { members, .. } => {
                let node = members.finish(|value| self.holes.push(Hole::of_priority(here, value)));
                self.deliver(node.map_err(BadLong::Data)?)
            }
            Frame::Places { .. } => Ok(()),
        }
    }

    /// Puts a value where it belongs.
    fn deliver(&mut self, node: Node) -> Result<(), BadLong> {
        match self.frames.last_mut() {
            None => self.value = Some(node),
            Some(Frame::Array { index, children, awaited }) => {
                children.insert(Key::from_index(*index), node);
                *index += 1;
                *awaited = Awaited::CommaOrEnd;
            }
            Some(Frame::Object { key, members, awaited }) => {
                match key.take().expect("a value has a name") {
                    Name::Key(key) => members.put(key, node).map_err(BadLong::Data)?,
                    Name::Value if members.value.is_some() => return Err(BadLong::Data(Invalid::Duplicate)),
                    Name::Value => members.value = Some(node),
                    Name::Priority => unreachable!("priorities are no values"),
                }
                *awaited = Awaited::CommaOrEnd;
            }
            Some(Frame::Places { place, awaited, .. }) => {
                let location = place.take().expect("a value has a place");
                let draft = Draft::with_holes(node, std::mem::take(&mut self.holes));
                self.places.as_mut().expect("places are awaited").push((location, draft));
                *awaited = Awaited::CommaOrEnd;
            }
        }
        Ok(())
    }

    /// Where the value stands that comes next, below the outermost value or place.
    fn here(&self) -> Path {
        Self::path_of(&self.frames)
    }

    /// Where the innermost container stands.
    fn here_above(&self) -> Path {
        Self::path_of(&self.frames[..self.frames.len() - 1])
    }

    fn path_of(frames: &[Frame]) -> Path {
        frames.iter().fold(Path::ROOT, |path, frame| match frame {
            Frame::Array { index, .. } => path.child(&Key::from_index(*index)),
            Frame::Object { key: Some(Name::Key(key)), .. } => path.child(key),
            Frame::Object { .. } | Frame::Places { .. } => path,
        })
    }
}

impl Members {
    fn name(&self, name: &str) -> Result<Name, Invalid> {
        match name {
            ".value" => Ok(Name::Value),
            ".priority" => Ok(Name::Priority),
            // Where it is allowed it stands alone, and is shorter than a piece.
            ".sv" => Err(Invalid::ServerValue),
            _ if name.starts_with('.') => Err(Invalid::Reserved),
            _ => Key::parse(name).map(Name::Key).map_err(Invalid::Key),
        }
    }
}

/// How many bytes the value at the start of `text` takes; `None` if it is a container of more than
/// `bytes_max`. Whether it is JSON is seen when it is read.
fn extent(text: &[u8], bytes_max: usize) -> Result<Option<usize>, BadLong> {
    match text[0] {
        b'"' => string_extent(text).map(Some),
        b'{' | b'[' => {
            let (mut at, mut level) = (0, 0_usize);
            while at < text.len() {
                if at > bytes_max {
                    return Ok(None);
                }
                match text[at] {
                    b'"' => at += string_extent(&text[at..])? - 1,
                    b'{' | b'[' => level += 1,
                    b'}' | b']' => level -= 1,
                    _ => {}
                }
                at += 1;
                if level == 0 {
                    return Ok(Some(at));
                }
            }
            Err(BadLong::NotJson)
        }
        b']' | b'}' | b',' | b':' => Err(BadLong::NotJson),
        _ => {
            let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
            let word = &text[..text.len().min(PIECE_BYTES_MAX)];
            match word.iter().position(is_end) {
                Some(end) => Ok(Some(end)),
                None if word.len() == text.len() => Ok(Some(text.len())),
                None => Err(BadLong::NotJson),
            }
        }
    }
}

/// How many bytes the string at the start of `text` takes, with its quotes.
fn string_extent(text: &[u8]) -> Result<usize, BadLong> {
    let text = &text[..text.len().min(STRING_BYTES_MAX)];
    let mut at = 1;
    while let Some(distance) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += distance;
        if text[at] == b'"' {
            return Ok(at + 1);
        }
        at += 2;
    }
    Err(if text.len() == STRING_BYTES_MAX { BadLong::Data(Invalid::TextTooLong) } else { BadLong::NotJson })
}
