// SPDX-License-Identifier: MIT OR Apache-2.0
//! Python's `%`: `"/dev/%s%d" % (disk, 1)`.

use std::iter::Peekable;
use std::slice::Iter;
use std::str::Chars;

use super::expression::Room;
use crate::import::value::Value;

/// What stands between `%` and the letter.
#[derive(Default)]
struct Style {
    left: bool,
    plus: bool,
    space: bool,
    zero: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
}

/// `pattern % arguments`.
pub(super) fn format(pattern: &str, arguments: &Value, room: &mut Room) -> Result<String, String> {
    // A tuple is several arguments, anything else is one.
    let given = match arguments {
        Value::Tuple(items) => &items[..],
        one => std::slice::from_ref(one),
    };
    room.take(pattern.len())?;
    let all = arguments;
    let mut arguments = given.iter();
    let mut result = String::new();
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        if character != '%' {
            result.push(character);
            continue;
        }
        let style = style(&mut rest)?;
        let part = match rest.next() {
            // Whatever stands between the two.
            Some('%') => "%".to_owned(),
            Some(letter) => field(letter, &style, &mut arguments)?,
            None => return Err("the format ends behind a \"%\"".into()),
        };
        room.take(part.len().max(style.width))?;
        result.push_str(&pad(part, &style));
    }
    match arguments.next() {
        None => Ok(result),
        // A list could be one that is looked up by name, so Python does not mind.
        Some(_) if matches!(all, Value::List(_)) => Ok(result),
        Some(_) => Err("the format has fewer places than there are values".into()),
    }
}

fn style(rest: &mut Peekable<Chars<'_>>) -> Result<Style, String> {
    let mut style = Style::default();
    while let Some(flag) = rest.next_if(|c| "-+ 0#".contains(*c)) {
        match flag {
            '-' => style.left = true,
            '+' => style.plus = true,
            ' ' => style.space = true,
            '0' => style.zero = true,
            _ => style.alternate = true,
        }
    }
    style.width = count(rest)?;
    if rest.next_if_eq(&'.').is_some() {
        style.precision = Some(count(rest)?);
    }
    // They mean nothing in Python.
    rest.next_if(|c| "hlL".contains(*c));
    Ok(style)
}

fn count(rest: &mut Peekable<Chars<'_>>) -> Result<usize, String> {
    let mut count = 0_usize;
    while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
        rest.next();
        count = count * 10 + digit as usize;
        if count > 10_000 {
            return Err("the format asks for more than any guest's file needs".into());
        }
    }
    Ok(count)
}

fn field(letter: char, style: &Style, arguments: &mut Iter<'_, Value>) -> Result<String, String> {
    let argument = arguments
        .next()
        .ok_or("the format has more places than there are values")?;
    let unlike = || format!("%{letter} of {} is not reckoned here", argument.kind());
    match letter {
        's' => {
            let text = match argument {
                Value::Text(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Flag(true) => "True".into(),
                Value::Flag(false) => "False".into(),
                Value::Nothing => "None".into(),
                _ => return Err(unlike()),
            };
            // Python 2 counts bytes.
            if !text.is_ascii() && (style.width > 0 || style.precision.is_some()) {
                return Err(unlike());
            }
            let length = style.precision.unwrap_or(text.len()).min(text.len());
            Ok(text[..length].to_owned())
        }
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let number = match argument {
                Value::Number(number) => *number,
                Value::Flag(flag) => i64::from(*flag),
                _ => return Err(unlike()),
            };
            Ok(whole(letter, number, style))
        }
        _ => Err(format!(
            "the format has a place \"%{letter}\", which is not reckoned here"
        )),
    }
}

fn whole(letter: char, number: i64, style: &Style) -> String {
    let size = number.unsigned_abs();
    let (prefix, digits) = match letter {
        'x' => ("0x", format!("{size:x}")),
        'X' => ("0X", format!("{size:X}")),
        'o' => (if number == 0 { "" } else { "0" }, format!("{size:o}")),
        _ => ("", size.to_string()),
    };
    let sign = match number {
        ..0 => "-",
        _ if style.plus => "+",
        _ if style.space => " ",
        _ => "",
    };
    let prefix = if style.alternate { prefix } else { "" };
    let mut digits = digits;
    if let Some(precision) = style.precision {
        // In front of it, an octal number's prefix is a digit.
        let octal = if letter == 'o' { prefix.len() } else { 0 };
        digits = format!("{digits:0>width$}", width = precision.saturating_sub(octal));
    }
    if style.zero && !style.left {
        let taken = sign.len() + prefix.len();
        digits = format!("{digits:0>width$}", width = style.width.saturating_sub(taken));
    }
    format!("{sign}{prefix}{digits}")
}

fn pad(part: String, style: &Style) -> String {
    match style.left {
        true => format!("{part:<width$}", width = style.width),
        false => format!("{part:>width$}", width = style.width),
    }
}
