// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a parser has of memory at a time, with what libraries in C allocate for it: these take the place of glibc's functions.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use nix::libc::{self, c_int, c_void, size_t};

/// Bytes in a MiB.
pub const MIB: usize = 1 << 20;

/// Bytes that are allocated now.
static LIVE: AtomicUsize = AtomicUsize::new(0);
/// The most there were since the parser began.
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// More than this is too much; nothing is while no parser runs.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
/// The most that any run took.
static WORST: AtomicUsize = AtomicUsize::new(0);

/// Runs `parser`, which may have `most` bytes.
pub fn limit(most: usize, parser: impl FnOnce()) {
    static TELL: Once = Once::new();
    TELL.call_once(|| {
        // SAFETY: the function takes nothing and may be called at any time.
        unsafe { libc::atexit(tell) };
    });
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    LIMIT.store(before.saturating_add(most), Relaxed);
    parser();
    LIMIT.store(usize::MAX, Relaxed);
    // Threads of the run before may have given theirs back meanwhile.
    WORST.fetch_max(PEAK.load(Relaxed).saturating_sub(before), Relaxed);
}

/// For the table of `make fuzz`.
extern "C" fn tell() {
    eprintln!("stat::parser_peak_kib: {}", WORST.load(Relaxed).div_ceil(1024));
    eprintln!("stat::processor_seconds: {}", crate::processor().as_secs());
}

unsafe extern "C" {
    fn __libc_malloc(size: size_t) -> *mut c_void;
    fn __libc_calloc(count: size_t, size: size_t) -> *mut c_void;
    fn __libc_realloc(block: *mut c_void, size: size_t) -> *mut c_void;
    fn __libc_memalign(align: size_t, size: size_t) -> *mut c_void;
    fn __libc_free(block: *mut c_void);
}

/// What the block has room for.
fn room(block: *mut c_void) -> usize {
    // SAFETY: the block is one that the allocator has given, or null.
    unsafe { libc::malloc_usable_size(block) }
}

fn taken(block: *mut c_void) -> *mut c_void {
    let size = room(block);
    let live = LIVE.fetch_add(size, Relaxed) + size;
    PEAK.fetch_max(live, Relaxed);
    if live > LIMIT.load(Relaxed) {
        LIMIT.store(usize::MAX, Relaxed);
        let why = "too much memory: the parser has more than it may\n";
        // SAFETY: the text is there, and nothing is allocated in here; libFuzzer takes the signal and writes the input down.
        unsafe {
            libc::write(2, why.as_ptr().cast(), why.len());
            libc::abort();
        }
    }
    block
}

fn given_back(size: usize) {
    LIVE.fetch_sub(size, Relaxed);
}

/// # Safety
///
/// As malloc(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(size: size_t) -> *mut c_void {
    // SAFETY: as the caller says.
    taken(unsafe { __libc_malloc(size) })
}

/// # Safety
///
/// As calloc(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn calloc(count: size_t, size: size_t) -> *mut c_void {
    // SAFETY: as the caller says.
    taken(unsafe { __libc_calloc(count, size) })
}

/// # Safety
///
/// As realloc(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: size_t) -> *mut c_void {
    let before = room(block);
    // SAFETY: as the caller says.
    let moved = unsafe { __libc_realloc(block, size) };
    // What cannot be moved is still there.
    if !moved.is_null() || size == 0 {
        given_back(before);
    }
    taken(moved)
}

/// # Safety
///
/// As aligned_alloc(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aligned_alloc(align: size_t, size: size_t) -> *mut c_void {
    // SAFETY: as the caller says.
    taken(unsafe { __libc_memalign(align, size) })
}

/// # Safety
///
/// As posix_memalign(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(place: *mut *mut c_void, align: size_t, size: size_t) -> c_int {
    // SAFETY: as the caller says.
    let block = taken(unsafe { __libc_memalign(align, size) });
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: as the caller says.
    unsafe { *place = block };
    0
}

/// # Safety
///
/// As free(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    given_back(room(block));
    // SAFETY: as the caller says.
    unsafe { __libc_free(block) }
}
