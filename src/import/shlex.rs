// SPDX-License-Identifier: MIT OR Apache-2.0
//! Words as a shell splits them: Python's `shlex.split`, to which xend gives the arguments of a bootloader
//! (XendBootloader.py).

/// The words of `text`; `None` if a quote or an escape does not end.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '"' => break,
                        '\\' => match rest.next()? {
                            escaped @ ('"' | '\\') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(rest.next()?),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    /// As Python's shlex answers.
    #[test]
    fn words() {
        for (text, expected) in [
            ("", &[][..]),
            ("  a  b\tc\n", &["a", "b", "c"]),
            ("--args='root=/dev/xvda1 ro' -q", &["--args=root=/dev/xvda1 ro", "-q"]),
            ("a\"b 'c' \\\" d\\e\"f", &["ab 'c' \" d\\ef"]),
            ("'' \"\"", &["", ""]),
            ("a\\ b 'c\\'", &["a b", "c\\"]),
        ] {
            assert_eq!(
                split(text).as_deref(),
                Some(&expected.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
                "{text}"
            );
        }
        for text in ["'", "\"a", "a\\", "\"a\\"] {
            assert_eq!(split(text), None, "{text}");
        }
    }
}
