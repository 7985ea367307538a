// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of files: as text, and as a way from a directory.

use std::fmt::Write;
use std::ops::RangeInclusive;

/// Directories within each other; Linux would take more, nobody makes them.
const DEPTH: usize = 128;
/// What a file system takes for one name.
pub(super) const COMPONENT: usize = 255;

/// What is shown of a long name.
const SHOWN: usize = 100;

/// What shows nothing, so that two texts look the same, or moves what stands around it: `Default_Ignorable_Code_Point` of Unicode 16
/// (DerivedCoreProperties.txt), and the separators and marks that terminals leave out or obey as well. Some emoji and a few words of
/// Persian and Mongolian are shown in a longer way for it.
const HIDDEN: [RangeInclusive<char>; 18] = [
    // The soft hyphen, the grapheme joiner, and the mark of Arabic.
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    // Letters without a shape, of Korean and Khmer.
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{3164}'..='\u{3164}',
    '\u{ffa0}'..='\u{ffa0}',
    // Mongolian variation selectors, and its vowel separator.
    '\u{180b}'..='\u{180f}',
    // Zero width, and marks of direction.
    '\u{200b}'..='\u{200f}',
    // Separators of lines and paragraphs; embedding and overriding of direction.
    '\u{2028}'..='\u{202e}',
    // Joiners, operators nobody sees, isolated directions, and shaping that is not to be used.
    '\u{2060}'..='\u{206f}',
    // Variation selectors.
    '\u{fe00}'..='\u{fe0f}',
    // The byte order mark.
    '\u{feff}'..='\u{feff}',
    // Annotations between lines.
    '\u{fff0}'..='\u{fffb}',
    // Shorthand and notes of music.
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    // Tags: a text of ASCII that nobody sees.
    '\u{e0000}'..='\u{e007f}',
    // More variation selectors, and what is kept free around them.
    '\u{e0080}'..='\u{e0fff}',
];

/// Whether a character shows itself and does nothing else.
pub fn is_plain(c: char) -> bool {
    c.is_ascii_graphic() || c == ' ' || !c.is_control() && !HIDDEN.iter().any(|hidden| hidden.contains(&c))
}

/// `name` as text without anything that a terminal or a line would not bear: what is no UTF-8 and what is not printed is
/// written `\xNN`, a backslash `\\`.
pub fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                c if is_plain(c) => text.push(c),
                c => bytes(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        bytes(&mut text, chunk.invalid());
    }
    text
}

/// The same of a name that may be longer than a message can be: its beginning.
pub fn shorten(name: &[u8]) -> String {
    match name.get(..SHOWN) {
        Some(beginning) => escape(beginning) + "…",
        None => escape(name),
    }
}

fn bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // A String takes all.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// What [`escape`] has made of a name, back.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            name.push(*byte);
            continue;
        }
        let (kind, after) = rest.split_first()?;
        rest = after;
        name.push(match kind {
            b'\\' => b'\\',
            b'n' => b'\n',
            b't' => b'\t',
            b'x' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            _ => return None,
        });
    }
    Some(name)
}

/// The parts of the name of a file in an archive; none for the archive's own directory. One that begins with `/` begins at
/// the archive's own, as at Linux' when that unpacks it.
///
/// # Errors
///
/// Why it is no name of something within it.
pub(super) fn parts(name: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if name.is_empty() {
        return Err("it has no name");
    }
    let parts: Vec<&[u8]> = name
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .collect();
    if parts.contains(&&b".."[..]) {
        return Err("its name has .. in it, which leads out of the directory");
    }
    if parts.len() > DEPTH {
        return Err("it is more than 128 directories deep");
    }
    match parts.iter().any(|part| part.len() > COMPONENT) {
        true => Err("a part of its name has more than 255 bytes"),
        false => Ok(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_and_back() {
        for (name, text) in [
            (&b"usr/bin/x y"[..], "usr/bin/x y"),
            ("größe".as_bytes(), "größe"),
            (b"a\nb\t\\", "a\\nb\\t\\\\"),
            (b"\x1b[2J\xff", "\\x1b[2J\\xff"),
            ("\u{202e}gpj".as_bytes(), "\\xe2\\x80\\xaegpj"),
            ("\u{9b}1m".as_bytes(), "\\xc2\\x9b1m"),
        ] {
            assert_eq!(escape(name), text);
            assert_eq!(unescape(text).as_deref(), Some(name));
        }
        for wrong in ["\\", "\\y", "\\x1", "\\xzz", "\\xé"] {
            assert_eq!(unescape(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_that_lead_out() {
        assert_eq!(parts(b"./usr//bin/"), Ok(vec![&b"usr"[..], b"bin"]));
        assert_eq!(parts(b"/bin/sh"), Ok(vec![&b"bin"[..], b"sh"]));
        assert_eq!((parts(b"."), parts(b"/")), (Ok(vec![]), Ok(vec![])));
        for wrong in [
            &b""[..],
            b"..",
            b"/..",
            b"a/../b",
            b"a/..",
            &[b'a'; 256],
            &b"a/".repeat(129),
        ] {
            assert!(parts(wrong).is_err(), "{}", escape(wrong));
        }
    }
}
