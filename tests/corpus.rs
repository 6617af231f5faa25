//! Every decoder survives its fuzzing corpus, and thousands of mutations of it: always the same ones,
//! so a failure names the seed that finds it again. `fuzz/` looks further.

#![expect(clippy::disallowed_methods, reason = "tests read files")]

use std::fs;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use stillhere::{auth, rules, wire};

/// Mutations of each corpus.
const MUTATIONS: u64 = 4_000;
/// Bytes and runs that mean something to one decoder or another.
const MORSELS: [&[u8]; 40] = [
    b"\x00",
    b"\x7e",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\xc3\xa9",
    b"\xf0\x9f\x90\xb5",
    b"\r\n",
    b"\n",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"null",
    b"0",
    b"9999",
    b"-1",
    b"1e999",
    b"/",
    b".",
    b"%",
    b"&",
    b"auth",
    b"data",
    b"newData",
    b".val()",
    b".child('a')",
    b" && ",
    b" || ",
    b" ? true : ",
    b" == ",
    b"$b",
    b"(",
    b")",
    b"'",
    b"true",
    b"\"exp\":",
    b"1800000000",
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(&folder).expect(name).map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} has a corpus");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn below(dice: &mut ChaCha8Rng, bound: usize) -> usize {
    (dice.next_u64() % bound.max(1) as u64) as usize
}

/// A range of `bytes`, mostly short.
fn some_range(dice: &mut ChaCha8Rng, bytes: &[u8]) -> std::ops::Range<usize> {
    let from = below(dice, bytes.len() + 1);
    let reach = if below(dice, 4) == 0 { bytes.len() } else { 8 };
    from..(from + below(dice, reach + 1)).min(bytes.len())
}

fn mutate(dice: &mut ChaCha8Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=below(dice, 4) {
        let range = some_range(dice, bytes);
        match below(dice, 6) {
            0 if !bytes.is_empty() => {
                let at = below(dice, bytes.len());
                bytes[at] ^= 1 << below(dice, 8);
            }
            1 => drop(bytes.drain(range)),
            2 => {
                let copy = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, copy);
            }
            3 => {
                let piece = other[some_range(dice, other)].to_vec();
                bytes.splice(range, piece);
            }
            4 => bytes.truncate(range.start),
            _ => {
                let morsel = MORSELS[below(dice, MORSELS.len())];
                bytes.splice(range, morsel.iter().copied());
            }
        }
    }
}

#[test]
fn decoders_survive_their_corpora_and_mutations_of_them() {
    let probes = wire::probe::ALL.into_iter().chain(rules::probe::ALL).chain(auth::probe::ALL);
    for (name, probe) in probes {
        let corpus = corpus(name);
        corpus.iter().for_each(|bytes| probe(bytes));
        for seed in 0..MUTATIONS {
            let mut dice = ChaCha8Rng::seed_from_u64(seed);
            let mut bytes = corpus[below(&mut dice, corpus.len())].clone();
            let other = &corpus[below(&mut dice, corpus.len())];
            mutate(&mut dice, &mut bytes, other);
            let outcome = std::panic::catch_unwind(|| probe(&bytes));
            assert!(outcome.is_ok(), "{name}, seed {seed}: {:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
