// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that look random and are the same every time.

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to below `limit` (xorshift64*).
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or(0) % limit
    }

    /// One of these.
    pub fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    /// With one, sometimes two characters taken out, put in or changed, out of `alphabet`.
    pub fn spoil(&mut self, text: &str, alphabet: &str) -> String {
        let mut characters: Vec<char> = text.chars().collect();
        let alphabet: Vec<char> = alphabet.chars().collect();
        for _ in 0..=self.below(2) {
            let at = self.below(characters.len() + 1);
            let other = alphabet[self.below(alphabet.len())];
            match self.below(3) {
                0 => characters.insert(at, other),
                1 if at < characters.len() => characters[at] = other,
                _ if at < characters.len() => drop(characters.remove(at)),
                _ => {}
            }
        }
        characters.into_iter().collect()
    }
}
