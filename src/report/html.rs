// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text in a page. Everything that is not written by us goes through [`Text`]: nothing of it can be taken for markup, in an
//! element or in an attribute in quotation marks, and nothing turns the order of what is around it.

use std::fmt::{self, Display, Write};

use crate::base::text;

/// A text as a part of a page.
pub(super) struct Text<T>(pub(super) T);

impl<T: AsRef<str>> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::line(self.0.as_ref()).chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_markup() {
        for (text, shown) in [
            ("größe & <b>", "größe &amp; &lt;b&gt;"),
            ("\"' onload='x", "&quot;&#39; onload=&#39;x"),
            ("\u{202e}gpj\u{61c}\u{0}", "\\u{202e}gpj\\u{61c}\\u{0}"),
            ("</script><script>", "&lt;/script&gt;&lt;script&gt;"),
        ] {
            assert_eq!(Text(text).to_string(), shown);
        }
    }
}
