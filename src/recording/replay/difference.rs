// SPDX-License-Identifier: MIT OR Apache-2.0
//! How two machines differ that should be the same, in words.

use crate::qemu::memory;

/// More registers that differ are counted.
const SHOWN: usize = 6;

/// A register that differs: its name, what is in it, and what is in that of the other machine.
pub(in crate::recording) type Register = (String, String, String);

/// `RAX was …, is …`, a line for each register, and one for the memory.
pub(in crate::recording) fn lines(registers: &[Register], memory: Option<&memory::Difference>) -> Vec<String> {
    let shown = registers.iter().take(SHOWN);
    let mut lines: Vec<String> = shown
        .map(|(name, was, is)| format!("{name} was {was}, is {is}"))
        .collect();
    match registers.len().saturating_sub(SHOWN) {
        0 => {}
        1 => lines.push("one more register differs".to_owned()),
        more => lines.push(format!("{more} more registers differ")),
    }
    lines.extend(memory.map(ToString::to_string));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_too_many() {
        let registers: Vec<Register> = (0..9)
            .map(|number| (format!("R{number}"), "0".to_owned(), "1".to_owned()))
            .collect();
        assert_eq!(lines(&registers[..2], None), ["R0 was 0, is 1", "R1 was 0, is 1"]);
        assert_eq!(lines(&registers[..7], None)[6], "one more register differs");
        let memory = memory::Difference {
            pages: 2,
            bytes: 5,
            first: 4096,
            values: (1, 2),
        };
        let all = lines(&registers, Some(&memory));
        assert_eq!(all.len(), 8);
        assert_eq!(all[6], "3 more registers differ");
        assert_eq!(
            all[7],
            "the byte at 0x1000 of the memory was 01, is 02 (5 bytes differ, on 2 pages)"
        );
    }
}
