// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in the processor, read from what QEMU writes of it for people (`info registers`; `x86_cpu_dump_state` in QEMU's
//! target/i386/cpu-dump.c).
//!
//! There are two forms: `RAX=…` while the processor runs code of 64 bits, `EAX=…` without R8 to R15 while it does not.

use std::collections::{HashMap, HashSet};

/// A field of the text: its name, and the words behind it.
type Field<'a> = (&'a str, Vec<&'a str>);

/// The registers of one processor that a debugger asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "their names are the processor's own")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ldt: Segment,
    pub tr: Segment,
    /// Without a selector and flags, which it does not have.
    pub gdt: Segment,
    /// The same.
    pub idt: Segment,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
}

/// A segment, as the processor keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Segment {
    /// What was loaded.
    pub selector: u16,
    /// The address of its first byte.
    pub base: u64,
    /// The offset of its last byte.
    pub limit: u32,
    /// The second word of its descriptor, without the bits of base and limit.
    pub flags: u32,
}

impl Registers {
    /// Those of the first processor in `text`; `None` if one is missing or is no number.
    pub fn parse(text: &str) -> Option<Self> {
        let fields = fields(text);
        let words = |name: &str| {
            let mut named = fields.iter().filter(|(it, _)| *it == name);
            named.next().map(|(_, words)| words.as_slice())
        };
        let number = |name: &str| hex(words(name)?.first()?);
        let segment = |name: &str| Segment::parse(words(name)?);
        let table = |name: &str| Segment::of_table(words(name)?);
        let is_long = words("RIP").is_some();
        let general = |long, short| number(if is_long { long } else { short });
        // Code of 32 bits does not see them, and QEMU does not show them.
        let upper = |name| if is_long { number(name) } else { Some(0) };
        Some(Self {
            rax: general("RAX", "EAX")?,
            rbx: general("RBX", "EBX")?,
            rcx: general("RCX", "ECX")?,
            rdx: general("RDX", "EDX")?,
            rsi: general("RSI", "ESI")?,
            rdi: general("RDI", "EDI")?,
            rbp: general("RBP", "EBP")?,
            rsp: general("RSP", "ESP")?,
            r8: upper("R8")?,
            r9: upper("R9")?,
            r10: upper("R10")?,
            r11: upper("R11")?,
            r12: upper("R12")?,
            r13: upper("R13")?,
            r14: upper("R14")?,
            r15: upper("R15")?,
            rip: general("RIP", "EIP")?,
            rflags: general("RFL", "EFL")?,
            es: segment("ES")?,
            cs: segment("CS")?,
            ss: segment("SS")?,
            ds: segment("DS")?,
            fs: segment("FS")?,
            gs: segment("GS")?,
            ldt: segment("LDT")?,
            tr: segment("TR")?,
            gdt: table("GDT")?,
            idt: table("IDT")?,
            cr0: number("CR0")?,
            cr2: number("CR2")?,
            cr3: number("CR3")?,
            cr4: number("CR4")?,
            efer: number("EFER")?,
        })
    }
}

impl Segment {
    fn parse(words: &[&str]) -> Option<Self> {
        let [selector, base, limit, flags, ..] = words else {
            return None;
        };
        Some(Self {
            selector: hex(selector)?.try_into().ok()?,
            base: hex(base)?,
            limit: hex(limit)?.try_into().ok()?,
            flags: hex(flags)?.try_into().ok()?,
        })
    }

    fn of_table(words: &[&str]) -> Option<Self> {
        let [base, limit, ..] = words else {
            return None;
        };
        Some(Self {
            base: hex(base)?,
            limit: hex(limit)?.try_into().ok()?,
            ..Self::default()
        })
    }
}

/// What differs between two texts of `info registers`, in the order of the first: the name of each register, and what is in it,
/// as QEMU writes it, in `a` and in `b`. Where one of them does not have the register, that is nothing.
pub fn differences(a: &str, b: &str) -> Vec<(String, String, String)> {
    let (a, b) = (fields(a), fields(b));
    let (of_a, of_b) = (by_name(&a), by_name(&b));
    let value = |fields: &HashMap<_, &[&str]>, name| fields.get(name).map(|words| words.join(" ")).unwrap_or_default();
    let only_b = b.iter().filter(|(name, _)| !of_a.contains_key(name));
    // A guest that has broken out of its QEMU may have said a name again and again.
    let mut seen = HashSet::new();
    a.iter()
        .chain(only_b)
        .filter(|(name, _)| seen.insert(*name))
        .map(|(name, _)| ((*name).to_owned(), value(&of_a, name), value(&of_b, name)))
        .filter(|(_, a, b)| a != b)
        .collect()
}

/// What is in each field; of those with one name, in the first.
fn by_name<'a, 'b>(fields: &'b [Field<'a>]) -> HashMap<&'a str, &'b [&'a str]> {
    let mut named = HashMap::new();
    for (name, words) in fields {
        named.entry(*name).or_insert(words.as_slice());
    }
    named
}

/// All of `text` that has the form `NAME=VALUE`.
fn fields(text: &str) -> Vec<Field<'_>> {
    let mut fields: Vec<Field<'_>> = Vec::new();
    for line in text.lines() {
        // What stands before the first "=" of a line belongs to no value.
        let mut begun = false;
        let mut before = None;
        for word in line.split_whitespace() {
            match word.split_once('=') {
                // Short names are padded: "R8 =…".
                Some(("", value)) => {
                    let Some(name) = before else { continue };
                    if let (true, Some((_, words))) = (begun, fields.last_mut()) {
                        words.pop();
                    }
                    fields.push((name, vec![value]));
                    begun = true;
                }
                // A segment's privilege and the top of the FPU's stack are said once more of what stands before them.
                Some((name, value)) if name != "DPL" && !name.starts_with('[') => {
                    // "GDT=     …".
                    let words = if value.is_empty() { Vec::new() } else { vec![value] };
                    fields.push((name, words));
                    begun = true;
                }
                _ => {
                    if let (true, Some((_, words))) = (begun, fields.last_mut()) {
                        words.push(word);
                    }
                }
            }
            before = Some(word);
        }
    }
    fields
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of SeaBIOS in protected mode.
    const PROTECTED: &str = include_str!("../../tests/fixtures/registers/protected.txt");

    /// Of Linux.
    const LONG: &str = include_str!("../../tests/fixtures/registers/long.txt");

    #[test]
    fn of_64_bits() {
        let registers = Registers::parse(LONG).expect("registers");
        assert_eq!(registers.rip, 0xffff_ffff_8abc_3643);
        assert_eq!(registers.r11, 0xffff_ffff_8bcd_2328);
        assert_eq!(registers.r13, 0x1ce8);
        assert_eq!(registers.rflags, 0x283);
        assert_eq!(registers.gs.base, 0xffff_8bba_0f80_0000);
        assert_eq!(registers.cr3, 0xac10000);
        assert_eq!(registers.efer, 0xd01);
        let cs = Segment {
            selector: 0x10,
            base: 0,
            limit: u32::MAX,
            flags: 0x00af_9b00,
        };
        assert_eq!(registers.cs, cs);
        let gdt = Segment {
            base: 0xffff_fe00_0000_1000,
            limit: 0x7f,
            ..Segment::default()
        };
        assert_eq!(registers.gdt, gdt);
        // As it comes by QMP.
        assert_eq!(Registers::parse(&LONG.replace('\n', "\r\n")), Some(registers));
    }

    #[test]
    fn of_32_bits() {
        let registers = Registers::parse(PROTECTED).expect("registers");
        assert_eq!(
            (registers.rip, registers.rdx, registers.rsp),
            (0xec39c, 0xefbbf, 0x6fd8)
        );
        assert_eq!((registers.r8, registers.rflags, registers.cr0), (0, 2, 0x11));
        assert_eq!((registers.cs.selector, registers.cs.flags), (8, 0x00cf_9b00));
        assert_eq!((registers.tr.limit, registers.tr.flags), (0xffff, 0x8b00));
        assert_eq!((registers.idt.base, registers.idt.limit), (0x000f_61be, 0));
    }

    #[test]
    fn what_is_none() {
        for text in ["", "CPU#0", "=", " = =\n==", "unknown command: 'info registers'"] {
            assert_eq!(Registers::parse(text), None, "{text:?}");
        }
        for (old, new) in [
            ("R13=", "R16="),
            ("EFER=", "EFER=x"),
            ("IDT=  ", "IDT=x "),
            ("CS =0010", "CS =10010"),
        ] {
            assert!(LONG.contains(old), "{old}");
            assert_eq!(Registers::parse(&LONG.replace(old, new)), None, "{new}");
        }
    }

    #[test]
    fn what_differs_has_a_name() {
        assert_eq!(differences(LONG, LONG), []);
        assert_eq!(differences(LONG, &LONG.replace('\n', "\r\n")), []);
        let changes = [
            ("R9 =0", "R9 =1"),
            ("R15=0", "R15=2"),
            ("HLT=0", "HLT=1"),
            ("CS64 [-RA]", "CS64 [-R-]"),
            ("DR3=0", "DR3=3"),
            ("[ST=0]", "[ST=7]"),
            ("FPR7=0000000000000000 0000", "FPR7=0000000000000000 4000"),
            ("XMM15=0000000000000000 0", "XMM15=0000000000000000 f"),
        ];
        let mut other = LONG.to_owned();
        for (old, new) in changes {
            assert!(other.contains(old), "{old}");
            other = other.replace(old, new);
        }
        let found = differences(LONG, &other);
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["R9", "R15", "HLT", "CS", "DR3", "FSW", "FPR7", "XMM15"]);
        let difference = |name: &str, a: &str, b: &str| (name.to_owned(), a.to_owned(), b.to_owned());
        assert_eq!(found[2], difference("HLT", "0", "1"));
        let cs = "0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64";
        assert_eq!(
            found[3],
            difference("CS", &format!("{cs} [-RA]"), &format!("{cs} [-R-]"))
        );
        assert_eq!(found[5], difference("FSW", "0000 [ST=0]", "0000 [ST=7]"));
        // Another form has other registers.
        let forms = differences(PROTECTED, LONG);
        assert_eq!(forms[0], difference("EAX", "00000000", ""));
        assert!(forms.contains(&difference("R13", "", "0000000000001ce8")));
    }
}
