//! `cargo sim -- SEED` plays one history and shows it; `cargo sim -- FROM COUNT` plays many.

use std::collections::BTreeMap;
use std::process::ExitCode;

#[expect(clippy::print_stdout, reason = "it is a program")]
fn main() -> ExitCode {
    let numbers: Option<Vec<u64>> = std::env::args().skip(1).map(|text| text.parse().ok()).collect();
    match numbers.as_deref() {
        Some([seed]) => {
            let report = stillhere::sim::run(*seed, true);
            println!("{report:?}");
        }
        Some([from, count]) => {
            let mut reached = BTreeMap::new();
            for seed in *from..from + count {
                let _playing = Playing(seed);
                for (what, count) in stillhere::sim::run(seed, false).reached {
                    *reached.entry(what).or_insert(0) += count;
                }
                for (what, count) in stillhere::sim::run_power_cuts(seed) {
                    *reached.entry(what).or_insert(0) += count;
                }
                *reached.entry("causes looked for").or_insert(0) += stillhere::sim::run_causal(seed);
            }
            println!("{count} histories from seed {from} on agree with the reference");
            for (what, count) in reached {
                println!("{count:10} {what}");
            }
        }
        _ => {
            eprintln!("usage: cargo sim -- SEED | FROM COUNT");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Says which history it was when one fails.
struct Playing(u64);

impl Drop for Playing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the history of seed {} failed", self.0);
        }
    }
}
