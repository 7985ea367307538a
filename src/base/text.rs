// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text that was not written by us (of files, guests, recordings, other programs) on its way to a person, and sizes for one.
//!
//! A terminal does what is in it: an escape sequence clears the screen or types for its owner, a line break forges a line of ours,
//! and a few characters of Unicode turn the order of those around them, or show nothing at all. Everything that is shown goes through here.

use std::borrow::Cow;

// One list for all that is shown: names in images are in their lists by it.
pub use initrd::names::is_plain;

/// `text` as a part of a line: what is not plain is written as in a string of Rust.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_plain)
}

/// The same of a text whose line breaks are ours.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n' || is_plain(c))
}

/// The same of a program's text, whose columns are ours as well.
pub fn script(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t') || is_plain(c))
}

/// JSON that a person may look at, too: what is not plain, which only its strings can have, is written as JSON's own escapes.
pub fn json(json: &str) -> Cow<'_, str> {
    let stays = |c: char| c == '\n' || is_plain(c);
    if json.chars().all(stays) {
        return Cow::Borrowed(json);
    }
    let mut plain = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match stays(c) {
            true => plain.push(c),
            false => plain.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
        }
    }
    Cow::Owned(plain)
}

/// Bytes as a part of a line.
pub fn of_bytes(bytes: &[u8]) -> String {
    line(&String::from_utf8_lossy(bytes)).into_owned()
}

/// Bytes in a few digits, as `ls -h` has them: `26.3M`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["", "K", "M", "G"] {
        // What would be printed as 1024.0 is one of the next.
        if value < 1023.95 {
            return match unit {
                "" => format!("{count}"),
                unit => format!("{value:.1}{unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1}T")
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&stays) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match stays(c) {
            true => plain.push(c),
            false => plain.extend(c.escape_default()),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_do() {
        assert_eq!(line("größe: 5 \\ \"x\""), "größe: 5 \\ \"x\"");
        assert_eq!(line("a\u{1b}]0;pwned\u{7}b"), "a\\u{1b}]0;pwned\\u{7}b");
        assert_eq!(line("a\nstate: complete\r"), "a\\nstate: complete\\r");
        assert_eq!(lines("a\n\u{9b}2J"), "a\n\\u{9b}2J");
        assert_eq!(line("\u{202e}gpj"), "\\u{202e}gpj");
        assert_eq!(line("\u{61c}"), "\\u{61c}");
        assert_eq!(of_bytes(b"\xffx\x1b"), "\u{fffd}x\\u{1b}");
    }

    #[test]
    fn what_hides_or_reorders() {
        // The first and the last of each kind.
        let not_plain = [
            "\0\t\n\r\u{1b}\u{7f}\u{80}\u{85}\u{9b}\u{9f}",
            "\u{ad}\u{34f}\u{61c}\u{115f}\u{1160}\u{17b4}\u{17b5}\u{180b}\u{180e}\u{180f}",
            "\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}",
            "\u{2060}\u{2065}\u{2066}\u{2069}\u{206a}\u{206f}\u{3164}\u{fe00}\u{fe0f}\u{feff}\u{ffa0}",
            "\u{fff0}\u{fff9}\u{fffb}\u{1bca0}\u{1bca3}\u{1d173}\u{1d17a}",
            "\u{e0000}\u{e0001}\u{e0020}\u{e007f}\u{e0100}\u{e01ef}\u{e0fff}",
        ];
        for c in not_plain.iter().flat_map(|text| text.chars()) {
            assert!(!is_plain(c), "{c:?}");
            assert_eq!(line(&format!("a{c}b")), format!("a{}b", c.escape_default()));
        }
        // Their neighbours, and what people write.
        let plain = [
            " ~\u{a0}\u{ac}\u{ae}\u{34e}\u{350}\u{61b}\u{61d}\u{180a}\u{1810}\u{200a}\u{2010}\u{2027}\u{202f}\u{205f}\u{2070}",
            "\u{fdff}\u{fe10}\u{fefe}\u{ff00}\u{ffef}\u{fffc}\u{fffd}\u{1bc9f}\u{1bca4}\u{1d172}\u{1d17b}\u{e1000}",
            "größe \\ \"x\" e\u{301} שלום 你好 한국어 \u{1f600}",
        ];
        for text in plain {
            assert_eq!(line(text), text);
        }
    }

    #[test]
    fn json_means_the_same() {
        let value = ["\u{9b}31m\u{1b}[2J\u{7}", "\u{202e}gpj \"größe\"\n", "\u{1f600}"];
        let printed = serde_json::to_string_pretty(&value).expect("JSON");
        let shown = json(&printed);
        assert!(shown.chars().all(|c| c == '\n' || is_plain(c)), "{shown:?}");
        assert!(
            shown.contains("\\u009b31m") && shown.contains("\\u202egpj") && shown.contains("größe"),
            "{shown}"
        );
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).expect("JSON"), value);
    }

    #[test]
    fn sizes() {
        let cases = [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (27_577_549, "26.3M"),
            ((1 << 30) - 1, "1.0G"),
            (5 << 40, "5.0T"),
        ];
        for (count, shown) in cases {
            assert_eq!(bytes(count), shown);
        }
    }
}
