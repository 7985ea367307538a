// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text as GRUB's script language takes it. Its quoting is the shell's: nothing is special between single
//! quotes, and wildcards are expanded in bare words.

use std::borrow::Cow;
use std::str::Chars;

/// `text` as one word that means exactly `text`; bare if nothing in it is special.
pub fn word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(quoted(text))
}

/// `text` between single quotes; control characters, which would break the line, become blanks.
pub fn quoted(text: &str) -> String {
    format!("'{}'", without_controls(text).replace('\'', r"'\''"))
}

/// A list of options from /etc/default/grub. Such a list is GRUB script itself (it may quote, and name
/// variables), so it stays as it is; but one that would end the command or not parse is taken literally.
pub fn options(text: &str) -> String {
    let text = without_controls(text);
    let text = text.trim();
    if is_words(text) {
        return text.to_owned();
    }
    let words: Vec<_> = text.split_whitespace().map(word).collect();
    words.join(" ")
}

fn without_controls(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether GRUB reads `text` as words, and as nothing else.
fn is_words(text: &str) -> bool {
    let mut chars = text.chars();
    let mut begins = true;
    while let Some(c) = chars.next() {
        let fine = match c {
            '\'' => chars.any(|c| c == '\''),
            '"' => double_quoted(&mut chars),
            '\\' => chars.next().is_some(),
            '$' => variable(&mut chars),
            '#' => !begins,
            _ => !"{}|&;<>".contains(c),
        };
        if !fine {
            return false;
        }
        begins = c == ' ';
    }
    true
}

/// What follows a double quote, up to the next.
fn double_quoted(chars: &mut Chars<'_>) -> bool {
    while let Some(c) = chars.next() {
        match c {
            '"' => return true,
            '\\' => drop(chars.next()),
            '$' if !variable(chars) => return false,
            _ => {}
        }
    }
    false
}

/// What follows a dollar sign: `name` or `{name}`.
fn variable(chars: &mut Chars<'_>) -> bool {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match chars.as_str().strip_prefix('{') {
        None => chars.next().is_some_and(name),
        Some(rest) => match rest.split_once('}') {
            Some((inner, after)) => {
                *chars = after.chars();
                !inner.is_empty() && inner.chars().all(name)
            }
            None => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_themselves() {
        for plain in [
            "/boot/xen-4.17-amd64.gz",
            "root=UUID=0a-1b",
            "com1=115200,8n1",
            "a~b+c@d%e",
        ] {
            assert_eq!(word(plain), plain);
        }
        for (text, quoted) in [
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$root", "'$root'"),
            ("a*", "'a*'"),
            ("a;}", "'a;}'"),
            ("a\\", "'a\\'"),
            ("ä", "'ä'"),
            ("a\nb", "'a b'"),
        ] {
            assert_eq!(word(text), quoted);
        }
        assert_eq!(quoted("plain"), "'plain'");
    }

    #[test]
    fn option_lists_stay_unless_they_would_break_out() {
        for text in [
            "",
            "quiet splash",
            "acpi_osi='Windows 2012' quiet",
            "acpi_osi=\\\"x\\\"",
            "a=\"b $vt_handoff ${c}\"",
            "memmap=1M\\$2G",
            "a=b#c",
            "$vt_handoff",
            "a=\"\\\" }\"",
        ] {
            assert_eq!(options(text), text);
        }
        for (text, literal) in [
            ("  quiet\n splash ", "quiet  splash"),
            ("a; reboot }", "'a;' reboot '}'"),
            ("it's", r"'it'\''s'"),
            ("a=\"b", "'a=\"b'"),
            ("a\\", "'a\\'"),
            ("a=${b c", "'a=${b' c"),
            ("a=$", "'a=$'"),
            ("a=\"$\"", "'a=\"$\"'"),
            ("quiet #x", "quiet '#x'"),
            ("a={b}", "'a={b}'"),
        ] {
            assert_eq!(options(text), literal);
        }
    }
}
