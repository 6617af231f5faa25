//! What is told to those who record the operations of a database.
//!
//! Costs: nothing while nobody records; then a value is printed for each operation, to know its size.

use super::{Asker, Listener, Shard, Told};
use crate::base::{Now, SessionRef};
use crate::data::{Draft, Node, Path, plain};
use crate::op::{Event, Index, Operation, OperationKind, Outcome, Refusal, Request, Write};

/// What of a request is recorded, kept while the request is performed.
pub(super) struct Asked {
    kind: OperationKind,
    path: Path,
    /// Of what is written.
    bytes: usize,
    index: Option<Index>,
}

impl Asked {
    /// None if the request is none that is recorded.
    fn of(request: &Request, is_plain: bool) -> Option<Self> {
        let (kind, path, bytes, index) = match request {
            Request::Write { write, if_hash } | Request::Exchange { write, if_hash } => {
                let kind = kind_of(write, if_hash.is_some(), is_plain);
                (kind, write.path().clone(), bytes_of_write(write), None)
            }
            Request::Get { path, .. } => {
                let kind = if is_plain { OperationKind::RestRead } else { OperationKind::Read };
                (kind, path.clone(), 0, None)
            }
            Request::Listen { path, query, .. } => (OperationKind::Listen, path.clone(), 0, Some(query.index.clone())),
            Request::Unlisten { path, .. } => (OperationKind::Unlisten, path.clone(), 0, None),
            Request::MayWrite { .. } | Request::Cancel { .. } | Request::Profile => return None,
        };
        Some(Self { kind, path, bytes, index })
    }
}

impl Shard {
    /// The session is told of every operation from here on.
    pub(super) fn profile(&mut self, asker: &Asker) -> Result<Outcome, Refusal> {
        let session = asker.session.ok_or(Refusal::Malformed("only a session can listen"))?;
        if !asker.identity.is_admin {
            return Err(Refusal::Denied);
        }
        self.profilers.push(Listener::new(session, None, 0));
        Ok(Outcome::Done)
    }

    /// Whether the session was told of operations. It no longer is.
    pub(super) fn stop_profiling(&mut self, session: SessionRef) -> bool {
        let before = self.profilers.len();
        self.profilers.retain(|listener| listener.session != session);
        self.profilers.len() < before
    }

    /// What of the request is to be recorded, if anybody records.
    pub(super) fn before_profiled(&self, asker: &Asker, request: &Request) -> Option<Asked> {
        if self.profilers.is_empty() { None } else { Asked::of(request, asker.is_plain) }
    }

    /// Tells what has come of a request, and of what it made others hear: what was told from `from` on.
    pub(super) fn after_profiled(
        &self,
        now: Now,
        asker: &Asker,
        asked: Asked,
        outcome: &Outcome,
        from: usize,
        told: &mut Vec<Told>,
    ) {
        let Asked { kind, path, bytes, index } = asked;
        let is_listen = kind == OperationKind::Listen;
        let read = match outcome {
            Outcome::Value(node) if matches!(kind, OperationKind::Read | OperationKind::RestRead) => bytes_of(node),
            Outcome::Listening { .. } => told.get(from).map_or(0, |told| bytes_of_event(&told.event)),
            _ => 0,
        };
        let broadcasts: Vec<Operation> = told[from..]
            .iter()
            .filter(|told| !is_listen && !told.listeners.is_empty())
            .filter_map(|told| broadcast(now, told))
            .collect();
        let is_unindexed = matches!(outcome, Outcome::Listening { is_unindexed: true });
        let operation = Operation {
            kind,
            path,
            at: now.wall,
            bytes: bytes + read,
            pending: now.instant.since(asker.heard),
            is_allowed: *outcome != Outcome::Refused(Refusal::Denied),
            unindexed: index.filter(|_| is_unindexed),
        };
        self.record(operation, told);
        for operation in broadcasts {
            self.record(operation, told);
        }
    }

    /// Tells of a last word that came to be spoken, or was refused.
    pub(super) fn profile_last_word(
        &self,
        now: Now,
        word: &Write,
        is_allowed: bool,
        from: usize,
        told: &mut Vec<Told>,
    ) {
        if self.profilers.is_empty() {
            return;
        }
        let broadcasts: Vec<Operation> = told[from..].iter().filter_map(|told| broadcast(now, told)).collect();
        let mut operation = Operation::new(kind_of(word, false, false), word.path().clone(), now);
        operation.bytes = bytes_of_write(word);
        operation.is_allowed = is_allowed;
        self.record(operation, told);
        for operation in broadcasts {
            self.record(operation, told);
        }
    }

    pub(super) fn profile_disconnect(&self, now: Now, told: &mut Vec<Told>) {
        if !self.profilers.is_empty() {
            self.record(Operation::new(OperationKind::Disconnect, Path::ROOT, now), told);
        }
    }

    fn record(&self, operation: Operation, told: &mut Vec<Told>) {
        told.push(Told { event: Event::Operation(Box::new(operation)), listeners: self.profilers.clone() });
    }
}

/// What it takes to tell those who listen.
fn broadcast(now: Now, told: &Told) -> Option<Operation> {
    let (Event::Set { path, .. } | Event::Merge { path, .. }) = &told.event else { return None };
    let mut operation = Operation::new(OperationKind::Broadcast, path.clone(), now);
    operation.bytes = bytes_of_event(&told.event) * told.listeners.len();
    Some(operation)
}

const fn kind_of(write: &Write, is_conditional: bool, is_plain: bool) -> OperationKind {
    match (write, is_plain) {
        (Write::Merge { .. }, true) => OperationKind::RestUpdate,
        (_, true) => OperationKind::RestWrite,
        (Write::Merge { .. }, false) => OperationKind::Update,
        (_, false) if is_conditional => OperationKind::Transaction,
        (_, false) => OperationKind::Write,
    }
}

fn bytes_of(node: &Node) -> usize {
    let mut text = Vec::new();
    plain(&mut text, node);
    text.len()
}

fn bytes_of_event(event: &Event) -> usize {
    match event {
        Event::Set { node, .. } => bytes_of(node),
        Event::Merge { changes, .. } => changes.iter().map(|(_, node)| bytes_of(node)).sum(),
        Event::Revoked { .. } | Event::Operation(_) => 0,
    }
}

/// As far as it is known before server values are filled in.
fn bytes_of_write(write: &Write) -> usize {
    let bytes = |draft: &Draft| bytes_of(draft.stand_in());
    match write {
        Write::Set { value, .. } => bytes(value),
        Write::SetPriority { .. } => 0,
        Write::Merge { changes, .. } => changes.iter().map(|(_, draft)| bytes(draft)).sum(),
    }
}
