//! Values to text, appended to a buffer that the caller lends.

/// Appends `value` as a JSON string, quotes included.
///
/// Escapes what RFC 8259 section 7 demands (quote, backslash, control characters) and nothing
/// else; runs of other characters are copied whole.
pub fn text(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    let bytes = value.as_bytes();
    let mut copied = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..index]);
        copied = index + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

/// Appends a finite double as JavaScript would print it: the shortest text that reads back as the
/// same double, integers without a fraction.
pub fn number(out: &mut Vec<u8>, value: f64) {
    debug_assert!(value.is_finite(), "JSON has no other numbers, and none is stored");
    out.extend_from_slice(ryu_js::Buffer::new().format_finite(value).as_bytes());
}

/// Appends an integer.
pub fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}
