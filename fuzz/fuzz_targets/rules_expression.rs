//! Feeds any bytes to `stillhere::rules::probe::rules_expression`, which says what must hold.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| stillhere::rules::probe::rules_expression(bytes));
