// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the plugin does in QEMU.
//!
//! QEMU translates a block of the guest's instructions once, and executes it often. When it translates one it asks the plugin, which
//! says of what in it it wants to be called.
//!
//! It is the page in the guest's memory that a block is of, and not its address: what two programs have of the same page, each at an
//! address of its own, is translated once (`CF_PCREL`, `TARGET_TB_PCREL`). The address that is known then is that of the first; only the
//! last twelve bits hold for all. Where a block is executed, the processor knows the others ([`Code::address`]).

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::inside::{Inside, Processor, Register};
use crate::{Call, Record, Settings, Watch};

/// A block that QEMU translates (`struct qemu_plugin_tb`).
#[repr(C)]
pub struct Block {
    _private: [u8; 0],
}

/// An instruction of it (`struct qemu_plugin_insn`).
#[repr(C)]
pub struct Instruction {
    _private: [u8; 0],
}

/// Called when a block is translated.
pub type OnTranslation = extern "C" fn(id: u64, block: *mut Block);
/// What QEMU knows of an access to memory beside its address (`struct qemu_plugin_hwaddr`).
#[repr(C)]
pub struct Access {
    _private: [u8; 0],
}

/// Called when something is executed.
pub type OnExecution = extern "C" fn(processor: c_uint, data: *mut c_void);
/// Called when something was read or written.
pub type OnMemory = extern "C" fn(processor: c_uint, what: u32, address: u64, data: *mut c_void);
/// Called when QEMU ends.
pub type OnExit = extern "C" fn(id: u64, data: *mut c_void);

/// Functions of the plugin interface that are the same in all its versions. The numbers are of its enumerations: which registers a
/// function changes (0: none), which accesses to memory it is called for (2: writes).
pub struct Interface {
    /// `qemu_plugin_register_vcpu_tb_trans_cb`
    pub on_translation: unsafe extern "C" fn(u64, OnTranslation),
    /// `qemu_plugin_register_vcpu_tb_exec_cb`
    pub on_block: unsafe extern "C" fn(*mut Block, OnExecution, c_int, *mut c_void),
    /// `qemu_plugin_register_vcpu_insn_exec_cb`
    pub on_instruction: unsafe extern "C" fn(*mut Instruction, OnExecution, c_int, *mut c_void),
    /// `qemu_plugin_register_vcpu_mem_cb`
    pub on_memory: unsafe extern "C" fn(*mut Instruction, OnMemory, c_int, c_int, *mut c_void),
    /// `qemu_plugin_register_atexit_cb`
    pub on_exit: unsafe extern "C" fn(u64, OnExit, *mut c_void),
    /// `qemu_plugin_tb_n_insns`
    pub length: unsafe extern "C" fn(*const Block) -> usize,
    /// `qemu_plugin_tb_get_insn`
    pub instruction: unsafe extern "C" fn(*const Block, usize) -> *mut Instruction,
    /// `qemu_plugin_insn_vaddr`
    pub address: unsafe extern "C" fn(*const Instruction) -> u64,
    /// `qemu_plugin_insn_size`
    pub size: unsafe extern "C" fn(*const Instruction) -> usize,
    /// `qemu_plugin_mem_size_shift`: the logarithm of how many bytes an access to memory has
    pub logarithm: unsafe extern "C" fn(u32) -> c_uint,
    /// `qemu_plugin_mem_is_store`: whether something is written
    pub is_write: unsafe extern "C" fn(u32) -> bool,
    /// `qemu_plugin_get_hwaddr`
    pub access: unsafe extern "C" fn(u32, u64) -> *mut Access,
    /// `qemu_plugin_hwaddr_is_io`
    pub is_device: unsafe extern "C" fn(*const Access) -> bool,
    /// `qemu_plugin_hwaddr_phys_addr`
    pub in_memory: unsafe extern "C" fn(*const Access) -> u64,
}

/// What the versions of the interface have otherwise.
pub trait Version: Sync {
    /// The first two bytes of an instruction that has as many.
    ///
    /// # Safety
    ///
    /// It is an instruction of the block that is being translated.
    unsafe fn beginning(&self, instruction: *const Instruction) -> [u8; 2];

    /// Whether the last instruction of a block may be one that QEMU has begun to translate, and has left for the next block.
    ///
    /// # Safety
    ///
    /// They are instructions of the block that is being translated.
    unsafe fn is_left_out(&self, first: *const Instruction, last: *const Instruction) -> bool;
}

/// The plugin while it is loaded.
struct Watcher {
    interface: &'static Interface,
    version: &'static dyn Version,
    settings: Settings,
    inside: Inside,
    state: Mutex<State>,
}

/// What changes.
struct State {
    out: File,
    /// Records that are not written yet.
    records: Vec<u8>,
    /// Whether nobody reads them any more.
    is_broken: bool,
    calls: Calls,
    /// Where blocks were begun, and how many bytes they have.
    begun: HashSet<(u64, u16)>,
}

/// Where system calls begin and end.
#[derive(Default)]
struct Calls {
    /// One that has left its program and not come to the kernel: instructions before it, and its address.
    begun: Option<(u64, u64)>,
    /// Where the kernel begins with them.
    entries: HashSet<u64>,
}

/// A place in a block, as QEMU keeps it for a function that it calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Code {
    /// Where it was when it was translated.
    translated: u64,
    /// How many instructions are left from there to the end of the block.
    left: u16,
    /// Whether it is in a segment that does not begin at 0: the processor's own address is another one then. No system of today shares
    /// such code.
    is_segmented: bool,
}

/// A block, for as long as it may be executed.
struct Translated {
    begin: Code,
    /// Its bytes.
    size: u16,
    /// Where it was executed last.
    last: AtomicU64,
}

/// Bytes of records that are written at once.
const PIECE: usize = 1 << 15;

/// Bytes of an instruction of `syscall`.
const CALL: [u8; 2] = [0x0f, 0x05];

/// No instruction is longer.
const LONGEST: u64 = 15;

/// Bytes of a page.
const PAGE: u64 = 1 << 12;

/// The least and the most significant bits that an address of an instruction leaves free in a word: the most significant are all as
/// the one below them.
const FREE: u32 = 16;

/// The bit of these that says that code is in a segment. A block has 512 instructions at most.
const SEGMENTED: u16 = 1 << 15;

/// No address: a block was not executed yet.
const NOWHERE: u64 = u64::MAX;

static WATCHER: OnceLock<Watcher> = OnceLock::new();

thread_local! {
    /// Only the processor's thread has one.
    static PROCESSOR: RefCell<Option<Processor<'static>>> = const { RefCell::new(None) };
}

/// Begins with what QEMU was told on its command line. Not 0 if that is nothing, or if this QEMU does not have what is needed.
///
/// # Safety
///
/// `words` are `count` texts, each with a zero at its end, as QEMU hands them to `qemu_plugin_install`.
pub unsafe fn install(
    id: u64,
    (count, words): (c_int, *const *const c_char),
    interface: &'static Interface,
    version: &'static dyn Version,
) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: there are as many, and each ends with a zero.
    let words = (0..count).map(|index| unsafe { CStr::from_ptr(*words.add(index)) });
    let words: Option<Vec<&str>> = words.map(|word| word.to_str().ok()).collect();
    let settings = words.and_then(|words| Settings::of(words.into_iter()));
    let (Some(settings), Some(inside)) = (settings, Inside::find()) else {
        return 1;
    };
    // SAFETY: the descriptor was opened for us by whoever named it, and nobody else in QEMU knows of it.
    let out = unsafe { File::from_raw_fd(settings.out) };
    let watcher = Watcher {
        interface,
        version,
        settings,
        inside,
        state: Mutex::new(State {
            out,
            records: Vec::with_capacity(PIECE),
            is_broken: false,
            calls: Calls::default(),
            begun: HashSet::new(),
        }),
    };
    if WATCHER.set(watcher).is_err() {
        return 1;
    }
    // SAFETY: both functions live as long as QEMU: a plugin is not unloaded unless it asks for it.
    unsafe {
        (interface.on_translation)(id, on_translation);
        (interface.on_exit)(id, on_exit, std::ptr::null_mut());
    }
    0
}

impl Watcher {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the processor; nothing if this is not its thread.
    fn ask<T>(&'static self, ask: impl FnOnce(&mut Processor<'static>) -> T) -> Option<T> {
        PROCESSOR.with_borrow_mut(|processor| {
            if processor.is_none() {
                *processor = self.inside.processor();
            }
            processor.as_mut().map(ask)
        })
    }

    /// Instructions before the one that is `left` from the end of its block, with it; nothing if that is not watched.
    fn count(&'static self, left: u16) -> Option<u64> {
        let counted = self.ask(Processor::counted)?;
        let at = counted.checked_sub(left.into())?;
        self.settings.during.contains(&at).then_some(at)
    }

    /// Where in the guest's memory an access to `address` goes, if it goes there.
    fn in_memory(&self, what: u32, address: u64) -> Option<u64> {
        // SAFETY: it is asked of the access that QEMU tells of, before that is over.
        unsafe {
            let access = (self.interface.access)(what, address);
            let is_memory = !access.is_null() && !(self.interface.is_device)(access);
            is_memory.then(|| (self.interface.in_memory)(access))
        }
    }

    fn record(&self, record: Record) {
        let mut state = self.state();
        record.write(&mut state.records);
        if state.records.len() >= PIECE {
            state.flush();
        }
    }

    /// Says what of a block is watched.
    ///
    /// # Safety
    ///
    /// It is the block that is being translated.
    unsafe fn translated(&'static self, block: *mut Block) {
        // SAFETY: all functions are QEMU's, and are asked of this block and its instructions.
        unsafe {
            let instructions = self.instructions(block);
            let Some((first, length)) = instructions
                .first()
                .map(|it| it.0)
                .zip(u16::try_from(instructions.len()).ok())
            else {
                return;
            };
            let begin = (self.interface.address)(first);
            // This one is for the exception alone, and is not counted.
            let counted = match length == 1 && self.ask(Processor::is_before_exception).unwrap_or(false) {
                true => 0,
                false => length,
            };
            let is_segmented = self.ask(|it| it.register(Register::Rip)) != Some(begin);
            let code = |translated: u64, left: u16| Code {
                translated,
                left,
                is_segmented,
            };
            let first = code(begin, counted);
            let each = instructions.iter().zip((0..=counted).rev());
            let each = each.map(|((instruction, address), left)| (*instruction, code(*address, left)));
            match self.settings.watch {
                Watch::Blocks => (self.interface.on_block)(block, on_block, 0, first.packed()),
                Watch::NewBlocks => {
                    let (last, address) = instructions[instructions.len() - 1];
                    let size = address.wrapping_sub(begin) + (self.interface.size)(last) as u64;
                    let block_of = Translated {
                        begin: first,
                        size: size.try_into().unwrap_or(u16::MAX),
                        last: AtomicU64::new(NOWHERE),
                    };
                    // QEMU does not say when a block is gone.
                    let data = std::ptr::from_mut(Box::leak(Box::new(block_of)));
                    (self.interface.on_block)(block, on_new_block, 0, data.cast());
                }
                Watch::Instruction(wanted) => {
                    for (instruction, code) in each {
                        if code.translated % PAGE == wanted % PAGE {
                            (self.interface.on_instruction)(instruction, on_instruction, 0, code.packed());
                        }
                    }
                }
                Watch::Writes(_) | Watch::Memory(_) => {
                    for (instruction, code) in each {
                        (self.interface.on_memory)(instruction, on_write, 0, 2, code.packed());
                    }
                }
                Watch::Calls => {
                    for (instruction, code) in each {
                        let size = (self.interface.size)(instruction);
                        if size == CALL.len() && self.version.beginning(instruction) == CALL {
                            (self.interface.on_instruction)(instruction, on_call, 0, code.packed());
                        }
                    }
                    let calls = &mut self.state().calls;
                    // The kernel masks interrupts before it begins: nothing comes between.
                    if calls.begun.is_some() {
                        calls.entries.insert(begin);
                    }
                    if calls.entries.contains(&begin) {
                        (self.interface.on_block)(block, on_entry, 0, first.packed());
                    } else if self.may_be_behind_call(begin) {
                        (self.interface.on_block)(block, on_return, 0, first.packed());
                    }
                }
            }
        }
    }

    /// Whether a system call may be right before a block that is being translated. Where it is made need not have been seen: a program
    /// may have waited there from the beginning. In another page it may be in one program and not in another.
    fn may_be_behind_call(&'static self, begin: u64) -> bool {
        let size = CALL.len();
        let before = || self.ask(|it| it.memory(begin.wrapping_sub(size as u64), size));
        begin % PAGE < size as u64 || before() == Some(u16::from_le_bytes(CALL).into())
    }

    /// The instructions that are executed with a block, each with its address.
    ///
    /// # Safety
    ///
    /// It is the block that is being translated.
    unsafe fn instructions(&self, block: *mut Block) -> Vec<(*mut Instruction, u64)> {
        // SAFETY: these are instructions of this block, for their numbers are less than how many it has.
        unsafe {
            let all = (0..(self.interface.length)(block)).map(|index| (self.interface.instruction)(block, index));
            let mut all: Vec<_> = all.map(|it| (it, (self.interface.address)(it))).collect();
            if let [(first, _), .., (last, address)] = all[..]
                && address % PAGE > PAGE - LONGEST
                && self.version.is_left_out(first, last)
            {
                all.pop();
            }
            all
        }
    }
}

impl State {
    fn flush(&mut self) {
        self.is_broken |= !self.is_broken && self.out.write_all(&self.records).is_err();
        self.records.clear();
    }
}

impl Code {
    fn packed(self) -> *mut c_void {
        let segmented = if self.is_segmented { SEGMENTED } else { 0 };
        (self.translated << FREE | u64::from(self.left | segmented)) as *mut c_void
    }

    fn unpacked(data: *mut c_void) -> Self {
        let word = data as u64;
        Self {
            translated: (word.cast_signed() >> FREE).cast_unsigned(),
            left: word as u16 & !SEGMENTED,
            is_segmented: word as u16 & SEGMENTED != 0,
        }
    }

    /// Where it is, while it is executed. In the middle of a block QEMU does not keep the processor's own address up to date, but its
    /// page, in which all instructions of a block begin: after an exception it finds the instruction in the same way
    /// (`x86_restore_state_to_opc`).
    fn address(self, processor: &mut Processor<'_>) -> u64 {
        match self.is_segmented {
            true => self.translated,
            false => processor.register(Register::Rip) & !(PAGE - 1) | (self.translated % PAGE),
        }
    }
}

extern "C" fn on_translation(_id: u64, block: *mut Block) {
    if let Some(watcher) = WATCHER.get() {
        // SAFETY: QEMU says so.
        unsafe { watcher.translated(block) };
    }
}

extern "C" fn on_block(_processor: c_uint, data: *mut c_void) {
    let code = Code::unpacked(data);
    if let Some(watcher) = WATCHER.get()
        && let Some(at) = watcher.count(code.left)
        && let Some(address) = watcher.ask(|it| code.address(it))
    {
        let length = code.left.max(1);
        watcher.record(Record::Block { at, address, length });
    }
}

extern "C" fn on_new_block(_processor: c_uint, data: *mut c_void) {
    // SAFETY: it is what was handed to QEMU with this function, and is never freed.
    let block = unsafe { &*data.cast::<Translated>() };
    let Some(watcher) = WATCHER.get() else { return };
    let Some(address) = watcher.ask(|it| block.begin.address(it)) else {
        return;
    };
    // Only the processor's thread comes here.
    if block.last.swap(address, Ordering::Relaxed) != address
        && let Some(at) = watcher.count(block.begin.left)
        && watcher.state().begun.insert((address, block.size))
    {
        let size = block.size;
        watcher.record(Record::NewBlock { at, address, size });
    }
}

extern "C" fn on_instruction(_processor: c_uint, data: *mut c_void) {
    let code = Code::unpacked(data);
    if let Some(watcher) = WATCHER.get()
        && let Watch::Instruction(wanted) = watcher.settings.watch
        && watcher.ask(|it| code.address(it)) == Some(wanted)
        && let Some(at) = watcher.count(code.left)
    {
        watcher.record(Record::Instruction { at, address: wanted });
    }
}

extern "C" fn on_write(_processor: c_uint, what: u32, to: u64, data: *mut c_void) {
    let Some(watcher) = WATCHER.get() else { return };
    // QEMU 7.2 tells of reads as well, whichever are asked for (op_rw in its accel/tcg/plugin-gen.c).
    // SAFETY: it is what QEMU says of this access.
    if !unsafe { (watcher.interface.is_write)(what) } {
        return;
    }
    let (place, wanted) = match &watcher.settings.watch {
        Watch::Writes(wanted) => (Some(to), wanted),
        Watch::Memory(wanted) => (watcher.in_memory(what, to), wanted),
        _ => return,
    };
    // SAFETY: it is what QEMU says of this access.
    let size = 1_u16 << unsafe { (watcher.interface.logarithm)(what) }.min(15);
    if place.is_none_or(|place| place >= wanted.end || place.saturating_add(size.into()) <= wanted.start) {
        return;
    }
    let code = Code::unpacked(data);
    if let Some(at) = watcher.count(code.left) {
        let found = watcher.ask(|processor| {
            // A device would notice that it is read.
            let is_memory = watcher.in_memory(what, to).is_some();
            let value = is_memory.then(|| processor.memory(to, size.into()));
            (code.address(processor), value, processor.register(Register::Cr3))
        });
        let Some((address, value, space)) = found else { return };
        watcher.record(Record::Write {
            at,
            address,
            to,
            size,
            value,
            space,
        });
    }
}

extern "C" fn on_call(_processor: c_uint, data: *mut c_void) {
    let code = Code::unpacked(data);
    if let Some(watcher) = WATCHER.get()
        && let Some((counted, address)) = watcher.ask(|it| (it.counted(), code.address(it)))
    {
        watcher.state().calls.begun = Some((counted.saturating_sub(code.left.into()), address));
    }
}

/// The kernel begins with a system call: here all registers are known, and are still the program's.
extern "C" fn on_entry(_processor: c_uint, _data: *mut c_void) {
    let Some(watcher) = WATCHER.get() else { return };
    let Some((at, address)) = watcher.state().calls.begun.take() else {
        return;
    };
    let behind = address.wrapping_add(CALL.len() as u64);
    let record = watcher.ask(|processor| {
        let mut of = |register| processor.register(register);
        (of(Register::Rcx) == behind).then(|| {
            Record::Call(Call {
                at,
                address,
                space: of(Register::Cr3),
                stack: of(Register::Rsp),
                number: of(Register::Rax),
                thread: of(Register::FsBase),
                arguments: [
                    Register::Rdi,
                    Register::Rsi,
                    Register::Rdx,
                    Register::R10,
                    Register::R8,
                    Register::R9,
                ]
                .map(of),
            })
        })
    });
    if let Some(record) = record.flatten()
        && watcher.settings.during.contains(&at)
    {
        watcher.record(record);
    }
}

extern "C" fn on_return(_processor: c_uint, data: *mut c_void) {
    let code = Code::unpacked(data);
    let Some(watcher) = WATCHER.get() else { return };
    let Some(at) = watcher.count(code.left) else { return };
    let record = watcher.ask(|processor| {
        let address = code.address(processor);
        let mut of = |register| processor.register(register);
        Record::Return {
            at,
            address,
            space: of(Register::Cr3),
            stack: of(Register::Rsp),
            result: of(Register::Rax),
        }
    });
    if let Some(record) = record {
        watcher.record(record);
    }
}

extern "C" fn on_exit(_id: u64, _data: *mut c_void) {
    if let Some(watcher) = WATCHER.get() {
        watcher.state().flush();
    }
}

/// All of a plugin: for the version `$version` of QEMU's plugin interface, and what that has otherwise.
#[macro_export]
macro_rules! plugin {
    ($version:literal, $otherwise:expr) => {
        mod interface {
            use std::ffi::{c_char, c_int, c_uint, c_void};

            use $crate::watcher::{
                Access, Block, Instruction, Interface, OnExecution, OnExit, OnMemory, OnTranslation,
            };

            // As include/qemu/qemu-plugin.h has them, in QEMU 7.2 and 10.0.
            unsafe extern "C" {
                fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, function: OnTranslation);
                fn qemu_plugin_register_vcpu_tb_exec_cb(
                    block: *mut Block,
                    function: OnExecution,
                    registers: c_int,
                    data: *mut c_void,
                );
                fn qemu_plugin_register_vcpu_insn_exec_cb(
                    instruction: *mut Instruction,
                    function: OnExecution,
                    registers: c_int,
                    data: *mut c_void,
                );
                fn qemu_plugin_register_vcpu_mem_cb(
                    instruction: *mut Instruction,
                    function: OnMemory,
                    registers: c_int,
                    accesses: c_int,
                    data: *mut c_void,
                );
                fn qemu_plugin_register_atexit_cb(id: u64, function: OnExit, data: *mut c_void);
                fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
                fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
                fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
                fn qemu_plugin_insn_size(instruction: *const Instruction) -> usize;
                fn qemu_plugin_mem_size_shift(access: u32) -> c_uint;
                fn qemu_plugin_mem_is_store(access: u32) -> bool;
                fn qemu_plugin_get_hwaddr(access: u32, address: u64) -> *mut Access;
                fn qemu_plugin_hwaddr_is_io(access: *const Access) -> bool;
                fn qemu_plugin_hwaddr_phys_addr(access: *const Access) -> u64;
            }

            static INTERFACE: Interface = Interface {
                on_translation: qemu_plugin_register_vcpu_tb_trans_cb,
                on_block: qemu_plugin_register_vcpu_tb_exec_cb,
                on_instruction: qemu_plugin_register_vcpu_insn_exec_cb,
                on_memory: qemu_plugin_register_vcpu_mem_cb,
                on_exit: qemu_plugin_register_atexit_cb,
                length: qemu_plugin_tb_n_insns,
                instruction: qemu_plugin_tb_get_insn,
                address: qemu_plugin_insn_vaddr,
                size: qemu_plugin_insn_size,
                logarithm: qemu_plugin_mem_size_shift,
                is_write: qemu_plugin_mem_is_store,
                access: qemu_plugin_get_hwaddr,
                is_device: qemu_plugin_hwaddr_is_io,
                in_memory: qemu_plugin_hwaddr_phys_addr,
            };

            /// Which version of the interface this is for: QEMU reads it before anything else.
            // SAFETY: QEMU wants it under this name, and nothing else here has it.
            #[unsafe(no_mangle)]
            pub static qemu_plugin_version: c_int = $version;

            /// QEMU calls it when it has loaded the plugin.
            // SAFETY: QEMU wants it under this name, and nothing else here has it.
            #[unsafe(no_mangle)]
            pub extern "C" fn qemu_plugin_install(
                id: u64,
                _about: *const c_void,
                count: c_int,
                words: *const *const c_char,
            ) -> c_int {
                // SAFETY: they are what QEMU hands on, and functions of the interface.
                unsafe { $crate::watcher::install(id, (count, words), &INTERFACE, &$otherwise) }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_halves_and_lengths() {
        for (translated, left, is_segmented) in [
            (0, 1, false),
            (0xf_fff0, 0, true),
            (0x7fff_ffff_ffff, 512, false),
            (0xffff_8000_0000_0000, 1, true),
            (0xffff_ffff_ffff_ffff, 512, true),
        ] {
            let code = Code {
                translated,
                left,
                is_segmented,
            };
            assert_eq!(Code::unpacked(code.packed()), code);
        }
    }
}
