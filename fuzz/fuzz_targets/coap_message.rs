//! Feeds any bytes to `stillhere::wire::probe::coap_message`, which says what must hold.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| stillhere::wire::probe::coap_message(bytes));
