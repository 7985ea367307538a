// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reckoning what an expression is: numbers, strings, lists, tuples, and names that are known. Nothing is called.

use super::format;
use super::lexer::{Kind, Token};
use super::names::Names;
use crate::import::value::Value;

/// How deep an expression may be in itself.
const DEPTH: usize = 100;
/// How large all values together may become that are made on the way, in bytes.
const ROOM: usize = 4 << 20;

/// Why an expression has no value here, and where that is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) at: usize,
    pub(super) why: String,
}

/// What is left of [`ROOM`].
pub(super) struct Room(usize);

impl Room {
    pub(super) fn new() -> Self {
        Self(ROOM)
    }

    /// Takes it for a value of this size, before the value is made.
    pub(super) fn take(&mut self, size: usize) -> Result<(), String> {
        self.0 = self
            .0
            .checked_sub(size)
            .ok_or("its value would be larger than any guest's file needs")?;
        Ok(())
    }
}

/// The value of an expression, which is all of `tokens`; `end` is where something is missing if they end too early.
pub(super) fn evaluate(tokens: &[Token], end: usize, names: &mut Names, room: &mut Room) -> Result<Value, Refusal> {
    let mut reader = Reader {
        tokens,
        at: 0,
        end,
        depth: 0,
        names,
        room,
    };
    let value = reader.list_without_brackets()?;
    match reader.peek() {
        None => Ok(value),
        Some(_) => reader.refuse("this is more than ttvm reckons: only numbers, strings, lists and names are followed"),
    }
}

/// `left SIGN right`, of Python 2.
pub(super) fn operate(sign: &str, left: &Value, right: &Value, room: &mut Room) -> Result<Value, String> {
    match (sign, left, right) {
        ("+", Value::Text(left), Value::Text(right)) => {
            room.take(left.len() + right.len())?;
            Ok(Value::Text(format!("{left}{right}")))
        }
        ("+", Value::List(left_items), Value::List(right_items)) => {
            room.take(left.weight() + right.weight())?;
            Ok(Value::List([&left_items[..], right_items].concat()))
        }
        ("+", Value::Tuple(left_items), Value::Tuple(right_items)) => {
            room.take(left.weight() + right.weight())?;
            Ok(Value::Tuple([&left_items[..], right_items].concat()))
        }
        ("*", Value::Text(_) | Value::List(_) | Value::Tuple(_), times) => repeat(left, times, room),
        ("*", times, Value::Text(_) | Value::List(_) | Value::Tuple(_)) => repeat(right, times, room),
        ("%", Value::Text(pattern), arguments) => format::format(pattern, arguments, room).map(Value::Text),
        _ => match (whole(left), whole(right)) {
            (Some(left), Some(right)) => reckon(sign, left, right).map(Value::Number),
            _ => Err(format!("{} {sign} {} is not reckoned here", left.kind(), right.kind())),
        },
    }
}

/// True and False are numbers as well.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Flag(flag) => Some(i64::from(*flag)),
        _ => None,
    }
}

fn reckon(sign: &str, left: i64, right: i64) -> Result<i64, String> {
    if matches!(sign, "/" | "//" | "%") && right == 0 {
        return Err("this divides by zero".into());
    }
    let result = match sign {
        "+" => left.checked_add(right),
        "-" => left.checked_sub(right),
        "*" => left.checked_mul(right),
        // Python rounds down, and the remainder has the divisor's sign.
        "/" | "//" => left.checked_div(right).map(|quotient| {
            let rounded_up = left % right != 0 && (left < 0) != (right < 0);
            quotient - i64::from(rounded_up)
        }),
        "%" => left.checked_rem(right).map(|rest| {
            if rest != 0 && (rest < 0) != (right < 0) {
                rest + right
            } else {
                rest
            }
        }),
        _ => return Err(format!("\"{sign}\" is not reckoned here")),
    };
    result.ok_or_else(|| "the number does not fit into 64 bits".into())
}

fn repeat(value: &Value, times: &Value, room: &mut Room) -> Result<Value, String> {
    let Some(times) = whole(times) else {
        return Err(format!("{} * {} is not reckoned here", value.kind(), times.kind()));
    };
    let times = usize::try_from(times).unwrap_or(0);
    room.take(value.weight().saturating_mul(times))?;
    Ok(match value {
        Value::Text(text) => Value::Text(text.repeat(times)),
        Value::List(items) => Value::List(vec![&items[..]; times].concat()),
        Value::Tuple(items) => Value::Tuple(vec![&items[..]; times].concat()),
        other => other.clone(),
    })
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    end: usize,
    depth: usize,
    names: &'a mut Names,
    room: &'a mut Room,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn accept(&mut self, sign: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is(sign));
        self.at += usize::from(found);
        found
    }

    /// At the token that is next.
    fn refuse<T>(&self, why: impl Into<String>) -> Result<T, Refusal> {
        let at = self.peek().map_or(self.end, |token| token.at);
        Err(Refusal { at, why: why.into() })
    }

    /// `a`, or `a, b` and `a,`, which are tuples.
    fn list_without_brackets(&mut self) -> Result<Value, Refusal> {
        let first = self.sum()?;
        if !self.peek().is_some_and(|token| token.is(",")) {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.accept(",") {
            if self.peek().is_none_or(|token| token.is(")")) {
                break;
            }
            items.push(self.sum()?);
        }
        Ok(Value::Tuple(items))
    }

    fn sum(&mut self) -> Result<Value, Refusal> {
        self.chain(&["+", "-"], Self::product)
    }

    fn product(&mut self) -> Result<Value, Refusal> {
        self.chain(&["*", "/", "//", "%"], Self::signed)
    }

    /// Operators of one rank, from left to right.
    fn chain(
        &mut self,
        signs: &[&'static str],
        part: fn(&mut Self) -> Result<Value, Refusal>,
    ) -> Result<Value, Refusal> {
        let mut value = part(self)?;
        while let Some(token) = self.peek()
            && let Kind::Sign(sign) = token.kind
            && signs.contains(&sign)
        {
            self.at += 1;
            let right = part(self)?;
            value = operate(sign, &value, &right, self.room).map_err(|why| Refusal { at: token.at, why })?;
        }
        Ok(value)
    }

    fn signed(&mut self) -> Result<Value, Refusal> {
        let mut negative = false;
        let mut signed = false;
        let begin = self.at;
        while let Some(token) = self.peek()
            && (token.is("-") || token.is("+"))
        {
            negative ^= token.is("-");
            signed = true;
            self.at += 1;
        }
        let value = self.atom()?;
        match whole(&value) {
            _ if !signed => Ok(value),
            Some(number) => match if negative { number.checked_neg() } else { Some(number) } {
                Some(number) => Ok(Value::Number(number)),
                None => self.refuse("the number does not fit into 64 bits"),
            },
            None => Err(Refusal {
                at: self.tokens[begin].at,
                why: format!("{} has no sign here", value.kind()),
            }),
        }
    }

    fn atom(&mut self) -> Result<Value, Refusal> {
        let Some(token) = self.peek() else {
            return self.refuse("something is missing here");
        };
        let value = match &token.kind {
            Kind::Integer(Some(number)) => Value::Number(*number),
            Kind::Integer(None) => return self.refuse("this is no number, or one that does not fit into 64 bits"),
            Kind::Fraction(text) => Value::Fraction(text.clone()),
            Kind::Text(_) => return self.strings(),
            Kind::Name(name) => match name.as_str() {
                "True" => Value::Flag(true),
                "False" => Value::Flag(false),
                "None" => Value::Nothing,
                _ => self.name(name)?,
            },
            Kind::Sign("(") => return self.bracket(")"),
            Kind::Sign("[") => return self.bracket("]"),
            Kind::Sign(_) => {
                return self
                    .refuse("this is more than ttvm reckons: only numbers, strings, lists and names are followed");
            }
        };
        self.at += 1;
        self.nothing_behind()?;
        Ok(value)
    }

    /// No call, no attribute, no index.
    fn nothing_behind(&self) -> Result<(), Refusal> {
        match self.peek() {
            Some(token) if token.is("(") => self.refuse("this is a call, and ttvm runs no Python"),
            Some(token) if token.is(".") || token.is("[") || token.is("**") => {
                self.refuse("this is more than ttvm reckons: only numbers, strings, lists and names are followed")
            }
            _ => Ok(()),
        }
    }

    fn name(&mut self, name: &str) -> Result<Value, Refusal> {
        if self.tokens.get(self.at + 1).is_some_and(|next| next.is("(")) {
            return self.refuse("this is a call, and ttvm runs no Python");
        }
        match self.names.value(name) {
            Ok(value) => {
                let size = value.weight();
                let value = value.clone();
                self.room.take(size).or_else(|why| self.refuse(why))?;
                Ok(value)
            }
            Err(why) => self.refuse(why),
        }
    }

    /// Strings beside each other are one.
    fn strings(&mut self) -> Result<Value, Refusal> {
        let mut all = String::new();
        while let Some(Token {
            kind: Kind::Text(text), ..
        }) = self.peek()
        {
            match text {
                Ok(text) => all.push_str(text),
                Err(why) => return self.refuse(*why),
            }
            self.at += 1;
        }
        self.nothing_behind()?;
        Ok(Value::Text(all))
    }

    /// What is between brackets.
    fn bracket(&mut self, close: &'static str) -> Result<Value, Refusal> {
        self.depth += 1;
        if self.depth > DEPTH {
            return self.refuse(format!("this is more than {DEPTH} deep in brackets"));
        }
        self.at += 1;
        let value = if close == "]" {
            self.list()?
        } else if self.peek().is_some_and(|token| token.is(")")) {
            Value::Tuple(Vec::new())
        } else {
            self.list_without_brackets()?
        };
        if !self.accept(close) {
            return self.refuse("this is more than ttvm reckons: only numbers, strings, lists and names are followed");
        }
        self.depth -= 1;
        self.nothing_behind()?;
        Ok(value)
    }

    fn list(&mut self) -> Result<Value, Refusal> {
        let mut items = Vec::new();
        while !self.peek().is_some_and(|token| token.is("]")) {
            items.push(self.sum()?);
            if !self.accept(",") {
                break;
            }
        }
        Ok(Value::List(items))
    }
}
