//! Batches of packets that go through a card, or a virtqueue, and come back, over fakes: `steady_state` and
//! `virtqueue_cost` count what they allocate, and `benches/` their instructions.

#![allow(dead_code, reason = "each program uses some of it")]

pub mod cards;
pub mod queues;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Frames of a batch.
pub const BATCH: usize = 64;

/// The system's allocator; it counts what this thread allocates outside of the fake device.
pub struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static DEVICE_AT_WORK: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if !DEVICE_AT_WORK.get() {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    }
}

// SAFETY: all is left to `System`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's word.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's word.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's word.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's word.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

/// What `work` allocates, where [`Counting`] is the program's allocator.
pub fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// Runs `work` of the device: neither what it allocates nor its instructions count. `benches/` knows it by its name.
#[inline(never)]
pub fn device_at_work<T>(work: impl FnOnce() -> T) -> T {
    DEVICE_AT_WORK.set(true);
    let result = work();
    DEVICE_AT_WORK.set(false);
    result
}
