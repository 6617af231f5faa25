//! The records of a datagram (RFC 6347 section 4.1), as far as they must be known before the library sees them.
//!
//! OpenSSL ends a tunnel over a sealed record that is too short to hold a nonce and a tag, although anybody could have
//! sent it: such a record has to be dropped (section 4.1.2.7: "invalid records SHOULD be silently discarded").

/// Bytes of a record's head: type, version, epoch, number, length.
pub(super) const HEAD_BYTES: usize = 13;

/// The ranges of a datagram that each hold one whole record. What stands behind the last one is none.
pub(super) fn records(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length: [u8; 2] = rest.get(HEAD_BYTES - 2..HEAD_BYTES)?.try_into().expect("two");
        let (record, behind) = rest.split_at_checked(HEAD_BYTES + usize::from(u16::from_be_bytes(length)))?;
        rest = behind;
        Some(record)
    })
}

/// Whether a record is sealed: only the first epoch is not.
pub(super) fn is_sealed(record: &[u8]) -> bool {
    record[3..5] != [0, 0]
}

/// Appends those records of a datagram that may be given to a tunnel whose sealed records have `body_min` bytes at
/// least.
pub(super) fn sift(datagram: &[u8], body_min: usize, takes_plain: bool, out: &mut Vec<u8>) {
    let is_good = |record: &&[u8]| {
        let is_whole = record.len() >= HEAD_BYTES + body_min;
        if is_sealed(record) { is_whole } else { takes_plain }
    };
    records(datagram).filter(is_good).for_each(|record| out.extend_from_slice(record));
}
