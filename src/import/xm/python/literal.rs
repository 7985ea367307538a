// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Python's numbers and strings stand for.

use super::lexer::Kind;

const NOT_UTF_8: &str = "the bytes of this string are not UTF-8";
const NO_CHARACTER: &str = "this escape names no character, or needs Python to know which";

/// A number as it is written. One that is none, such as `0128`, counts as one that is too large: neither is carried over.
pub(super) fn number(text: &str) -> Kind {
    let lower = text.to_ascii_lowercase();
    // A `long`.
    let digits = lower.strip_suffix('l').unwrap_or(&lower);
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', b'o', ..] => (8, &digits[2..]),
        [b'0', b'b', ..] => (2, &digits[2..]),
        _ if digits.contains(['.', 'e', 'j']) => return Kind::Fraction(text.to_owned()),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    Kind::Integer(i64::from_str_radix(digits, radix).ok())
}

/// The content of a string, which stands between its quotes as `raw`.
pub(super) fn string(raw: &[u8], prefix: &str) -> Result<String, &'static str> {
    let unicode = prefix.starts_with('u');
    let mut content = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'\r' => {
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
                content.push(b'\n');
            }
            // A raw string's backslash stays, and so does what it protects.
            b'\\' if !prefix.ends_with('r') => rest = escape(rest, unicode, &mut content)?,
            // But for this one, in Python 2.
            b'\\' if unicode && matches!(rest.first(), Some(b'u' | b'U')) => return Err(NO_CHARACTER),
            byte => content.push(*byte),
        }
    }
    String::from_utf8(content).map_err(|_| NOT_UTF_8)
}

/// What stands behind a backslash; the rest is returned.
fn escape<'a>(rest: &'a [u8], unicode: bool, content: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    let Some((byte, behind)) = rest.split_first() else {
        return Ok(rest);
    };
    let plain = match byte {
        b'\n' => return Ok(behind),
        b'\r' => return Ok(behind.strip_prefix(b"\n").unwrap_or(behind)),
        b'\\' | b'\'' | b'"' => *byte,
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'0'..=b'7' => {
            let length = rest.iter().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
            let value = rest[..length]
                .iter()
                .fold(0_u32, |value, b| value * 8 + u32::from(b - b'0'));
            return code(value, unicode, content).map(|()| &rest[length..]);
        }
        b'x' => return hexadecimal(behind, 2, unicode, content),
        b'u' if unicode => return hexadecimal(behind, 4, true, content),
        b'U' if unicode => return hexadecimal(behind, 8, true, content),
        b'N' if unicode => return Err(NO_CHARACTER),
        // What is no escape stays as it is.
        _ => {
            content.push(b'\\');
            return Ok(rest);
        }
    };
    content.push(plain);
    Ok(behind)
}

fn hexadecimal<'a>(
    rest: &'a [u8],
    length: usize,
    unicode: bool,
    content: &mut Vec<u8>,
) -> Result<&'a [u8], &'static str> {
    let digits = rest.get(..length).ok_or(NO_CHARACTER)?;
    let mut value = 0;
    for digit in digits {
        value = value * 16 + char::from(*digit).to_digit(16).ok_or(NO_CHARACTER)?;
    }
    code(value, unicode, content)?;
    Ok(&rest[length..])
}

/// A byte, or of a Unicode string a character.
fn code(value: u32, unicode: bool, content: &mut Vec<u8>) -> Result<(), &'static str> {
    if unicode {
        let character = char::from_u32(value).ok_or(NO_CHARACTER)?;
        content.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        // Python 2 cuts an octal number of three digits down to a byte.
        content.push((value & 0xff) as u8);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, value) in [
            ("0", 0),
            ("010", 8),
            ("0o10", 8),
            ("0x1F", 31),
            ("0b11", 3),
            ("5L", 5),
            ("00", 0),
        ] {
            assert_eq!(number(text), Kind::Integer(Some(value)), "{text}");
        }
        for text in ["0128", "99999999999999999999", "1_000", "12ab", "0x"] {
            assert_eq!(number(text), Kind::Integer(None), "{text}");
        }
        for text in ["1.5", "1e5", ".5", "1.", "2j"] {
            assert_eq!(number(text), Kind::Fraction(text.to_owned()), "{text}");
        }
    }

    #[test]
    fn strings() {
        let read = |raw: &[u8], prefix| string(raw, prefix);
        assert_eq!(read(br"a\tb\'\q\\\101\x41", ""), Ok("a\tb'\\q\\AA".into()));
        assert_eq!(read(b"a\\\r\nb\r\nc", ""), Ok("ab\nc".into()));
        assert_eq!(read(br"a\tb\'", "r"), Ok(r"a\tb\'".into()));
        assert_eq!(read(br"\u00e9\U0001f570\x41\351", "u"), Ok("é🕰Aé".into()));
        assert_eq!(read(br"\xc3\xa9", ""), Ok("é".into()), "bytes that are UTF-8");
        assert_eq!(read(br"\u00e9", ""), Ok(r"\u00e9".into()));
        for (raw, prefix) in [
            (&br"\xe9"[..], ""),
            (br"\x4", ""),
            (br"\N{DASH}", "u"),
            (br"\ud800", "u"),
            (br"\u0041", "ur"),
        ] {
            assert!(read(raw, prefix).is_err());
        }
    }
}
