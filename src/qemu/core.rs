// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest that stands still, as a core file: what gdb(1) and crash(8) read without a machine.
//!
//! It is laid out as QEMU's `dump-guest-memory` without paging does it (QEMU's dump/dump.c and target/i386/arch_dump.c), but that
//! pages of zeros are holes, and that there is no ROM:
//!
//! ```text
//! ELF header          of a core file (elf(5))
//! program headers     the notes, and each range of RAM by its physical addresses
//! note CORE           the registers as of a process (NT_PRSTATUS: struct elf_prstatus of Linux)
//! note QEMU           all of the processor, with CR3 and the segments (QEMUCPUState)
//! memory              from a page on
//! ```
//!
//! Virtual addresses are not resolved: crash finds the kernel's page tables with CR3, and to gdb an address is a physical one
//! (below 4 GiB; all ranges begin at the virtual address 0).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::memory::{Memory, PAGE, is_zero};
use super::registers::{Registers, Segment};

/// Bytes of the ELF header.
const HEADER: u16 = 64;

/// Bytes of a program header.
const PROGRAM_HEADER: u16 = 56;

/// A program header of memory.
const PT_LOAD: u32 = 1;

/// A program header of notes.
const PT_NOTE: u32 = 4;

/// Memory that can be read, written and executed.
const RWX: u32 = 7;

/// The note of a thread's registers.
const NT_PRSTATUS: u32 = 1;

/// Of struct elf_prstatus, what stands before its pr_pid.
const BEFORE_PID: usize = 32;

/// What stands before its pr_reg.
const BEFORE_REGISTERS: usize = 112;

/// All of it.
const PRSTATUS: usize = 336;

/// The QEMUCPUSTATE_VERSION that is written.
const QEMU_STATE_VERSION: u32 = 1;

/// Bytes of a QEMUCPUState up to its cr\[4\]. QEMU has kernel_gs_base behind it, which `info registers` does not tell: whoever wants it
/// looks at the size first.
const QEMU_STATE: u32 = 432;

/// Where the RAM above the devices begins.
const HIGH: u64 = 1 << 32;

/// A machine with so much memory has a part of it from [`HIGH`] on, …
const SPLIT_FROM: u64 = 0xe000_0000;

/// … and this much below.
const LOW: u64 = 0xc000_0000;

/// Why there is no core file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registers are not understood.
    #[error(
        "cannot tell the registers from what QEMU wrote of them: this version of QEMU is not known, take one from 7.2 to 10.0"
    )]
    Registers,
    /// The memory cannot be read.
    #[error("cannot read the guest's memory")]
    Memory(#[from] io::Error),
    /// The file cannot be written.
    #[error("cannot write the core file: there may be no room for what the guest's memory holds, see df(1)")]
    Write(#[source] io::Error),
}

/// A part of the guest's RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ram {
    /// Its physical address.
    physical: u64,
    /// Where it begins in [`Memory`].
    at: u64,
    /// Its bytes.
    length: u64,
}

/// Writes `memory`, and `registers` as `info registers` tells them, as a core file. The guest has to stand still. What was in
/// `file` is lost.
///
/// # Errors
///
/// If the registers are not understood, the memory cannot be read, or the file cannot be written.
pub fn write(memory: &Memory, registers: &str, file: &File) -> Result<(), Error> {
    let registers = Registers::parse(registers).ok_or(Error::Registers)?;
    let (head, begin) = head(&registers, &ram(memory.size()));
    // What is not written is zero.
    file.set_len(0)
        .and_then(|()| file.set_len(begin + memory.size()))
        .and_then(|()| file.write_all_at(&head, 0))
        .map_err(Error::Write)?;
    let pages = usize::try_from(memory.size() / PAGE as u64).map_err(io::Error::other)?;
    memory.each_piece(0..pages, |from, piece| {
        let at = begin + from as u64 * PAGE as u64;
        for run in runs(piece) {
            file.write_all_at(&piece[run.clone()], at + run.start as u64)
                .map_err(Error::Write)?;
        }
        Ok(())
    })
}

/// The pages of `piece` that hold something: the bytes of each run of them.
fn runs(piece: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, page) in piece.chunks_exact(PAGE).enumerate() {
        let start = index * PAGE;
        match runs.last_mut() {
            _ if is_zero(page) => {}
            Some(last) if last.end == start => last.end += PAGE,
            _ => runs.push(start..start + PAGE),
        }
    }
    runs
}

/// Where the RAM of a pc-i440fx is: `pc_init1` in QEMU's hw/i386/pc_piix.c, with its max-ram-below-4g left alone.
fn ram(size: u64) -> Vec<Ram> {
    let low = if size >= SPLIT_FROM { LOW } else { size };
    let parts = [(0, 0, low), (HIGH, low, size - low)];
    parts
        .into_iter()
        .filter(|(.., length)| *length > 0)
        .map(|(physical, at, length)| Ram { physical, at, length })
        .collect()
}

/// All that stands before the memory, and where that begins.
fn head(registers: &Registers, ram: &[Ram]) -> (Vec<u8>, u64) {
    let mut notes = note("CORE", NT_PRSTATUS, &prstatus(registers));
    notes.extend(note("QEMU", 0, &qemu_state(registers)));
    let headers = ram.len() as u16 + 1;
    let notes_at = u64::from(HEADER + headers * PROGRAM_HEADER);
    let begin = (notes_at + notes.len() as u64).next_multiple_of(PAGE as u64);
    let mut head = elf_header(headers);
    head.extend(program_header(PT_NOTE, 0, notes_at, 0, notes.len() as u64, 4));
    for part in ram {
        let at = begin + part.at;
        head.extend(program_header(
            PT_LOAD,
            RWX,
            at,
            part.physical,
            part.length,
            PAGE as u64,
        ));
    }
    head.extend(notes);
    (head, begin)
}

/// Elf64_Ehdr.
fn elf_header(program_headers: u16) -> Vec<u8> {
    // Of 64 bits, little-endian, version 1.
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    // ET_CORE, EM_X86_64.
    for half in [4u16, 62] {
        header.extend(half.to_le_bytes());
    }
    header.extend(1u32.to_le_bytes());
    // The entry; the program headers; the section headers, of which there are none.
    for long in [0, u64::from(HEADER), 0] {
        header.extend(long.to_le_bytes());
    }
    header.extend([0; 4]);
    for half in [HEADER, PROGRAM_HEADER, program_headers, 0, 0, 0] {
        header.extend(half.to_le_bytes());
    }
    header
}

/// Elf64_Phdr, at the virtual address 0.
fn program_header(kind: u32, flags: u32, at: u64, physical: u64, length: u64, align: u64) -> Vec<u8> {
    let mut header = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
    for long in [at, 0, physical, length, length, align] {
        header.extend(long.to_le_bytes());
    }
    header
}

/// Elf64_Nhdr, with a name of four letters.
fn note(name: &str, kind: u32, content: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [name.len() as u32 + 1, content.len() as u32, kind] {
        note.extend(word.to_le_bytes());
    }
    note.extend(name.bytes());
    // The end of the name, and up to four bytes.
    note.resize(note.len() + 4, 0);
    note.extend(content);
    note
}

/// struct elf_prstatus (Linux' include/linux/elfcore.h), with a struct user_regs_struct (its arch/x86/include/asm/user_64.h).
fn prstatus(registers: &Registers) -> Vec<u8> {
    let it = registers;
    let mut status = vec![0; BEFORE_PID];
    // The first thread, as of QEMU's.
    status.extend(1u32.to_le_bytes());
    status.resize(BEFORE_REGISTERS, 0);
    let orig_rax = 0;
    let selector = |segment: Segment| u64::from(segment.selector);
    #[rustfmt::skip]
    let values = [
        it.r15, it.r14, it.r13, it.r12, it.rbp, it.rbx, it.r11, it.r10,
        it.r9, it.r8, it.rax, it.rcx, it.rdx, it.rsi, it.rdi, orig_rax,
        it.rip, selector(it.cs), it.rflags, it.rsp, selector(it.ss),
        it.fs.base, it.gs.base, selector(it.ds), selector(it.es), selector(it.fs), selector(it.gs),
    ];
    status.extend(values.map(u64::to_le_bytes).concat());
    status.resize(PRSTATUS, 0);
    status
}

/// QEMUCPUState.
fn qemu_state(registers: &Registers) -> Vec<u8> {
    let it = registers;
    let mut state = [QEMU_STATE_VERSION, QEMU_STATE].map(u32::to_le_bytes).concat();
    #[rustfmt::skip]
    let values = [
        it.rax, it.rbx, it.rcx, it.rdx, it.rsi, it.rdi, it.rsp, it.rbp,
        it.r8, it.r9, it.r10, it.r11, it.r12, it.r13, it.r14, it.r15,
        it.rip, it.rflags,
    ];
    state.extend(values.map(u64::to_le_bytes).concat());
    for segment in [it.cs, it.ds, it.es, it.fs, it.gs, it.ss, it.ldt, it.tr, it.gdt, it.idt] {
        let words = [u32::from(segment.selector), segment.limit, segment.flags, 0];
        state.extend(words.map(u32::to_le_bytes).concat());
        state.extend(segment.base.to_le_bytes());
    }
    // There is no CR1.
    state.extend([it.cr0, 0, it.cr2, it.cr3, it.cr4].map(u64::to_le_bytes).concat());
    state
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::config::types::Size;
    use crate::run;

    const LONG: &str = include_str!("../../tests/fixtures/registers/long.txt");
    const PROTECTED: &str = include_str!("../../tests/fixtures/registers/protected.txt");

    fn file() -> File {
        nix::sys::memfd::memfd_create(c"core", nix::sys::memfd::MFdFlags::empty())
            .map(File::from)
            .expect("memory")
    }

    fn long(file: &File, at: u64) -> u64 {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).expect("it is read");
        u64::from_le_bytes(bytes)
    }

    /// A memory whose pages hold their number.
    fn memory(size: Size, pages: &[usize]) -> Memory {
        let memory = Memory::new(size).expect("a memory");
        for page in pages {
            let content = (*page as u64).to_le_bytes().repeat(PAGE / 8);
            memory.write(*page, &content).expect("a page");
        }
        memory
    }

    #[test]
    fn gdb_reads_it() {
        if run::find("/".as_ref(), "gdb").is_none() {
            eprintln!("gdb is not installed");
            return;
        }
        let path = std::env::temp_dir().join(format!("ttvm-core-{}", std::process::id()));
        for (registers, rip) in [(LONG, "0xffffffff8abc3643"), (PROTECTED, "0xec39c")] {
            let file = File::create(&path).expect("a file");
            let memory = memory(Size::mib(16), &[1, 4095]);
            write(&memory, registers, &file).expect("a core file");
            let commands = ["info registers rip", "x/2gx 0x1000", "x/gx 0x2000", "x/gx 0xfffff8"];
            let output = Command::new("gdb")
                .args(["-nx", "-batch"])
                .args(commands.iter().flat_map(|command| ["-ex", command]))
                .arg("-core")
                .arg(&path)
                .stdin(Stdio::null())
                .output();
            std::fs::remove_file(&path).expect("it is removed");
            let output = output.expect("gdb");
            let said = String::from_utf8_lossy(&output.stdout);
            let words: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
            for expected in [
                ["rip", rip, rip].as_slice(),
                &["0x1000:", "0x0000000000000001", "0x0000000000000001"],
                &["0x2000:", "0x0000000000000000"],
                &["0xfffff8:", "0x0000000000000fff"],
            ] {
                assert!(
                    words.iter().any(|line| line.starts_with(expected)),
                    "{expected:?}: {said}\n{}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
    }

    #[test]
    fn what_is_where() {
        let gib = 1 << 30;
        let part = |physical, at, length| Ram { physical, at, length };
        assert_eq!(ram(16 << 20), [part(0, 0, 16 << 20)]);
        assert_eq!(ram(SPLIT_FROM - 4096), [part(0, 0, SPLIT_FROM - 4096)]);
        let high = [part(0, 0, 3 * gib), part(HIGH, 3 * gib, gib / 2)];
        assert_eq!(ram(SPLIT_FROM), high);
        assert_eq!(ram(5 * gib)[1], part(HIGH, 3 * gib, 2 * gib));
    }

    #[test]
    fn of_more_than_4_gib() {
        // The last page below 4 GiB, the first above it, and the last of all.
        let pages = [0xbffff, 0xc0000, 0x13_ffff];
        let memory = memory(Size::mib(5 << 10), &pages);
        let file = file();
        file.write_all_at(&[7; 3 * PAGE], 0).expect("what was there");
        write(&memory, LONG, &file).expect("a core file");
        let begin = PAGE as u64;
        assert_eq!(file.metadata().expect("its size").len(), begin + memory.size());
        assert_eq!(long(&file, begin), 0, "nothing of what was there is left");
        for page in pages {
            assert_eq!(long(&file, begin + page as u64 * begin), page as u64);
        }
        assert_eq!(
            file.metadata().expect("its size").blocks() * 512,
            4 * begin,
            "the rest is holes"
        );
        // The second and third program header: offset, virtual and physical address, length in the file and in memory.
        let header = |index: u64| {
            let at = u64::from(HEADER) + index * u64::from(PROGRAM_HEADER) + 8;
            [0, 8, 16, 24, 32].map(|field| long(&file, at + field))
        };
        let (low, high) = (3 << 30, 2 << 30);
        assert_eq!(header(1), [begin, 0, 0, low, low]);
        assert_eq!(header(2), [begin + low, 0, HIGH, high, high]);
    }

    #[test]
    fn all_of_the_processor() {
        let registers = Registers::parse(LONG).expect("registers");
        let status = prstatus(&registers);
        assert_eq!(status.len(), PRSTATUS);
        assert_eq!(status[112..120], registers.r15.to_le_bytes());
        assert_eq!(status[112 + 16 * 8..][..8], registers.rip.to_le_bytes());
        assert_eq!(status[112 + 22 * 8..][..8], registers.gs.base.to_le_bytes());
        let state = qemu_state(&registers);
        assert_eq!(state.len(), QEMU_STATE as usize);
        assert_eq!(state[8 + 16 * 8..][..8], registers.rip.to_le_bytes());
        // The selector, limit, flags and base of CS.
        let cs = [0x10, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x9b, 0xaf, 0, 0, 0, 0, 0];
        assert_eq!(state[152..168], cs);
        assert_eq!(state[432 - 16..432 - 8], registers.cr3.to_le_bytes());
    }

    #[test]
    fn registers_of_no_qemu() {
        let file = file();
        let unknown = write(&memory(Size::mib(1), &[]), "PC=0", &file);
        assert!(matches!(unknown, Err(Error::Registers)));
    }
}
