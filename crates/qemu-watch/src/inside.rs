// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked of QEMU that its plugin interface does not have: how many instructions were executed, the processor's registers, the
//! guest's memory.
//!
//! Each is a function that QEMU's program exports, for modules of its own; Debian's and Fedora's have them. They are looked up by name,
//! so that a QEMU without them is one that the plugin refuses, and not one that ends.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

unsafe extern "C" {
    /// POSIX: with null it looks in everything that the program has loaded.
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// QEMU's processor (`CPUState`).
type Cpu = c_void;

/// An array of GLib's, as its documentation has it (`GByteArray`).
#[repr(C)]
struct Bytes {
    data: *mut u8,
    length: u32,
}

/// What is asked.
pub(crate) struct Inside {
    icount_update: unsafe extern "C" fn(*mut Cpu),
    icount_get_raw: unsafe extern "C" fn() -> i64,
    replay_has_exception: unsafe extern "C" fn() -> bool,
    read_register: unsafe extern "C" fn(*mut Cpu, *mut Bytes, c_int) -> c_int,
    read_memory: unsafe extern "C" fn(*mut Cpu, u64, *mut c_void, usize, bool) -> c_int,
    new_bytes: unsafe extern "C" fn() -> *mut Bytes,
    set_size: unsafe extern "C" fn(*mut Bytes, u32) -> *mut Bytes,
}

/// A register, by the number that gdb has for it (QEMU's target/i386/gdbstub.c).
#[derive(Clone, Copy)]
pub(crate) enum Register {
    Rax = 0,
    Rcx = 2,
    Rdx = 3,
    Rsi = 4,
    Rdi = 5,
    Rsp = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    Rip = 16,
    FsBase = 24,
    Cr3 = 29,
}

impl Inside {
    /// `None` if this QEMU does not have all of it.
    pub(crate) fn find() -> Option<Self> {
        // SAFETY: these are the types that the functions of these names have in QEMU 7.2 to 10.0 (include/sysemu/cpu-timers.h,
        // target/i386/cpu.h, include/exec/cpu-common.h) and in GLib 2.
        unsafe {
            Some(Self {
                icount_update: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut Cpu)>(symbol(
                    c"icount_update",
                )?),
                icount_get_raw: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> i64>(symbol(
                    c"icount_get_raw",
                )?),
                replay_has_exception: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> bool>(symbol(
                    c"replay_has_exception",
                )?),
                read_register: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut Cpu, *mut Bytes, c_int) -> c_int,
                >(symbol(c"x86_cpu_gdb_read_register")?),
                read_memory: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut Cpu, u64, *mut c_void, usize, bool) -> c_int,
                >(symbol(c"cpu_memory_rw_debug")?),
                new_bytes: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *mut Bytes>(symbol(
                    c"g_byte_array_new",
                )?),
                set_size: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut Bytes, u32) -> *mut Bytes>(
                    symbol(c"g_byte_array_set_size")?,
                ),
            })
        }
    }

    /// Who asks in the thread of the processor, where alone all this is known.
    pub(crate) fn processor(&self) -> Option<Processor<'_>> {
        // A variable of each thread: this is that of ours.
        let current: *mut *mut Cpu = symbol(c"current_cpu")?.cast();
        // SAFETY: it is QEMU's variable (include/hw/core/cpu.h), which lives as long as the thread, and nobody else writes it.
        let cpu = unsafe { *current };
        (!cpu.is_null()).then(|| Processor {
            inside: self,
            current,
            cpu,
            // SAFETY: it takes nothing, and returns an array of our own.
            bytes: unsafe { (self.new_bytes)() },
        })
    }
}

fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends with a zero, and nothing is done with what is found.
    let found = unsafe { dlsym(null_mut(), name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// The processor, in its own thread.
pub(crate) struct Processor<'a> {
    inside: &'a Inside,
    current: *mut *mut Cpu,
    cpu: *mut Cpu,
    bytes: *mut Bytes,
}

impl Processor<'_> {
    /// Instructions that will have been executed at the end of the block that is being executed, if nothing ends it earlier.
    pub(crate) fn counted(&mut self) -> u64 {
        // The first brings the count up to date; the second reads it. To one who asks from within a block it says that this is no moment
        // to ask, and ends QEMU ("Bad icount read"): for this time there is no processor. A block that ends earlier gives back what it
        // did not execute, whenever it was counted.
        // SAFETY: we are in the processor's thread, so nobody else reads or writes this thread's variable, and `cpu` is what it had.
        let count = unsafe {
            (self.inside.icount_update)(self.cpu);
            *self.current = null_mut();
            let count = (self.inside.icount_get_raw)();
            *self.current = self.cpu;
            count
        };
        count.cast_unsigned()
    }

    /// Whether the next thing in the log is an exception. To be asked between blocks: QEMU does it there, too, and then executes one
    /// instruction that it does not count, for the exception comes before that is over.
    pub(crate) fn is_before_exception(&mut self) -> bool {
        // SAFETY: a block is being translated, so the thread has what the function wants: the lock of the replay.
        unsafe { (self.inside.replay_has_exception)() }
    }

    /// A register. To be asked where a block begins: elsewhere it may be in a register of the host. Of [`Register::Rip`] the page is right
    /// everywhere, and [`Register::Cr3`] is never in one.
    pub(crate) fn register(&mut self, register: Register) -> u64 {
        // SAFETY: the array is ours alone. QEMU appends the register to it, which is then read within its length.
        unsafe {
            (self.inside.set_size)(self.bytes, 0);
            (self.inside.read_register)(self.cpu, self.bytes, register as c_int);
            let bytes = &*self.bytes;
            let length = bytes.length.min(8);
            (0..length).fold(0, |value, index| {
                value | u64::from(*bytes.data.add(index as usize)) << (8 * index)
            })
        }
    }

    /// The first eight bytes, at most, of `size` at an address in the guest's memory; zeros where there is none.
    pub(crate) fn memory(&mut self, address: u64, size: usize) -> u64 {
        let mut bytes = [0; 8];
        let size = size.min(bytes.len());
        // SAFETY: as many bytes are written as there is room for. It reads as a debugger does, and changes nothing of the machine.
        unsafe {
            (self.inside.read_memory)(self.cpu, address, bytes.as_mut_ptr().cast(), size, false);
        }
        u64::from_le_bytes(bytes)
    }
}
