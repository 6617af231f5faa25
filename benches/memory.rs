//! What a node of the tree costs in memory: trees of records as presence makes them, counted by the
//! allocator that the server itself counts with.
//!
//! Not a matter of time, so nothing is repeated: the figures are the same on every run.

#![expect(clippy::print_stdout, reason = "memory is a figure that criterion does not measure")]

use stillhere::data::{Leaf, Node, Number};
use stillhere::runtime::{Counted, bytes_in_use};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const RECORDS: usize = 200_000;

/// What may be at a path of a record.
enum Value {
    Text(&'static str),
    Moment,
    True,
}

struct Case {
    name: &'static str,
    /// Paths and values of one record; `{}` stands for its name, of 28 characters as Firebase's users have.
    places: &'static [(&'static str, Value)],
    /// Nodes that each record adds.
    nodes: usize,
}

const CASES: [Case; 4] = [
    Case { name: "a word: status/UID = \"online\"", places: &[("status/{}", Value::Text("online"))], nodes: 1 },
    Case {
        name: "a state and a time: status/UID = {state, last_changed}",
        places: &[("status/{}/state", Value::Text("online")), ("status/{}/last_changed", Value::Moment)],
        nodes: 3,
    },
    Case {
        name: "connections and lastOnline: users/UID = {connections: {PUSH_ID: true}, lastOnline}",
        places: &[("users/{}/connections/-NqT7dPz0cYxk1vB2m3F", Value::True), ("users/{}/lastOnline", Value::Moment)],
        nodes: 4,
    },
    Case { name: "a device: d/NUMBER = true", places: &[("d/{}", Value::True)], nodes: 1 },
];

fn uid(record: usize) -> String {
    // As long as a user's id of Firebase, and in no order.
    format!("{:028x}", (record as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834) >> 16)
}

fn build(case: &Case) -> Node {
    let mut root = Node::Empty;
    for record in 0..RECORDS {
        let name = if case.name.starts_with("a device") { record.to_string() } else { uid(record) };
        for (path, value) in case.places {
            let leaf = match value {
                Value::Text(text) => Node::text(text),
                // As many different ones as there are moments.
                Value::Moment => {
                    Node::leaf(Leaf::Number(Number::Int(1_700_000_000_000 + i64::try_from(record).expect("few"))))
                }
                Value::True => Node::leaf(Leaf::Bool(true)),
            };
            drop(root.set(&path.replace("{}", &name), leaf));
        }
    }
    root
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    for case in &CASES {
        let before = bytes_in_use();
        let root = build(case);
        let bytes = bytes_in_use() - before;
        let records = RECORDS as u64;
        println!(
            "{:>5} bytes a record, {:>4} a node: {}",
            bytes / records,
            bytes / records / case.nodes as u64,
            case.name
        );
        drop(root);
    }
}
