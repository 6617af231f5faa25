//! Feeds any bytes to `stillhere::auth::probe::token`, which says what must hold.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| stillhere::auth::probe::token(bytes));
