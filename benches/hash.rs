//! The hash by which a client asks "do you still have what I have?", after one change: remembered at
//! every branch, against reckoned anew.

use criterion::{Criterion, criterion_group, criterion_main};
use stillhere::data::{Leaf, Node, Number};

fn tree(users: i64) -> Node {
    let mut root = Node::Empty;
    for index in 0..users {
        root.set(&format!("u{index}/state"), Node::text("online"));
        root.set(&format!("u{index}/last"), Node::leaf(Leaf::Number(Number::Int(index))));
    }
    root
}

/// The same tree, with nothing remembered: as if every node had been built just now.
fn forgetful(node: &Node) -> Node {
    let mut copy = Node::Empty;
    for (key, child) in node.children().iter() {
        copy.set(key.as_str(), if child.children().is_empty() { child.clone() } else { forgetful(child) });
    }
    copy
}

fn hash(c: &mut Criterion) {
    for users in [10, 1_000, 100_000] {
        let mut group = c.benchmark_group(format!("hash of {users} users after one change"));
        group.sample_size(10);
        let mut root = tree(users);
        let mut turn = 0;
        group.bench_function("remembered", |b| {
            b.iter(|| {
                turn += 1;
                root.set(&format!("u{}/last", turn % users), Node::leaf(Leaf::Number(Number::Int(-turn))));
                root.hash()
            });
        });
        group.bench_function("reckoned anew", |b| {
            b.iter_batched(|| forgetful(&root), |fresh| fresh.hash(), criterion::BatchSize::PerIteration);
        });
        group.finish();
    }
}

criterion_group!(benches, hash);
criterion_main!(benches);
