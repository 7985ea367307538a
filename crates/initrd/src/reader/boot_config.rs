// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration of Linux that `bootconfig -a` puts behind an image: text, its size and its sum, and a word that says so.
//! Linux takes it away before it unpacks what is before it (<https://docs.kernel.org/admin-guide/bootconfig.html>).

const MAGIC: &[u8] = b"#BOOTCONFIG\n";
/// Linux takes no longer text (`XBC_DATA_MAX`); boot loaders may align the end of the image.
pub(crate) const LIMIT: usize = (32 << 10) + 8 + MAGIC.len() + ALIGNED;
const ALIGNED: usize = 3;

/// Whether `rest`, with which an image ends, is one.
pub(crate) fn is_one(rest: &[u8]) -> bool {
    (0..=ALIGNED).any(|after| {
        let whole = rest.len().checked_sub(after).map(|end| &rest[..end]);
        let numbers = whole.and_then(|whole| whole.strip_suffix(MAGIC)?.split_last_chunk::<8>());
        let Some((text, [a, b, c, d, e, f, g, h])) = numbers else {
            return false;
        };
        let size = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let sum = text.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        (size, u32::from_le_bytes([*e, *f, *g, *h])) == (text.len(), sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_one() {
        let text = b"kernel.quiet = on\n\0\0";
        let sum = text.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        let whole = [&text[..], &20_u32.to_le_bytes(), &sum.to_le_bytes(), MAGIC].concat();
        assert!(is_one(&whole));
        assert!(is_one(&[&whole[..], &[0; 3]].concat()));
        assert!(!is_one(&[&whole[..], &[0; 4]].concat()));
        assert!(!is_one(&[b"x", &whole[..]].concat()) && !is_one(&whole[1..]) && !is_one(b"") && !is_one(MAGIC));
    }
}
