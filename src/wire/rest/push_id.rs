//! Push ids (Firebase wire specification, section 7.5): keys that order as they were made.

use crate::base::WallMillis;

/// Sorted as ASCII sorts, so that ids order as their numbers do.
const ALPHABET: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
const TIME_DIGITS: usize = 8;
const RANDOM_DIGITS: usize = 12;

/// Makes push ids: each greater than the one before.
#[derive(Debug, Default)]
pub struct PushIds {
    last: WallMillis,
    /// The last id's random part, 6 bits each.
    digits: [u8; RANDOM_DIGITS],
}

impl PushIds {
    /// The next id. `random` counts where the last one was made at another time.
    pub fn next(&mut self, now: WallMillis, random: [u64; 2]) -> String {
        if now > self.last {
            self.last = now;
            let random = u128::from(random[0]) << 64 | u128::from(random[1]);
            for (index, digit) in (0_u32..).zip(&mut self.digits) {
                #[expect(clippy::cast_possible_truncation, reason = "six bits")]
                let bits = (random >> (6 * index) & 63) as u8;
                *digit = bits;
            }
        } else {
            self.count_up();
        }
        let time = (0..TIME_DIGITS).rev().map(|place| {
            #[expect(clippy::cast_possible_truncation, reason = "six bits")]
            let bits = (self.last.0 >> (6 * place) & 63) as u8;
            bits
        });
        time.chain(self.digits).map(|digit| char::from(ALPHABET[usize::from(digit)])).collect()
    }

    fn count_up(&mut self) {
        for digit in self.digits.iter_mut().rev() {
            if *digit < 63 {
                *digit += 1;
                return;
            }
            *digit = 0;
        }
        // The random part has run over: as if a millisecond had passed.
        self.last.0 += 1;
    }
}
