//! DMA barriers: what orders our memory accesses against a device's.
//!
//! | barrier | orders | x86-64 | aarch64 | elsewhere |
//! |---|---|---|---|---|
//! | [`dma_wmb`] | our stores before our later stores, as the device sees them | nothing (stores stay in order); compiler only | `dmb oshst` | full fence |
//! | [`dma_rmb`] | our loads before our later loads of what the device wrote | nothing (loads stay in order); compiler only | `dmb oshld` | full fence |
//! | [`dma_mb`] | our stores before our later loads of what the device wrote | `mfence` or its like: a store may wait in its buffer while a later load goes ahead | `dmb osh` | full fence |
//!
//! An atomic with `Release` or `Acquire` orders against other processors only; on aarch64 a device
//! sits in the outer shareable domain, which is why these exist beside the atomics.

use std::sync::atomic::{Ordering, compiler_fence};

/// Stores before it reach the device before stores after it: descriptors before the doorbell.
#[inline(always)]
pub fn dma_wmb() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction touches neither memory nor registers nor flags.
    unsafe {
        std::arch::asm!("dmb oshst", options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
    std::sync::atomic::fence(Ordering::SeqCst);
    compiler_fence(Ordering::Release);
}

/// Loads before it are done before loads after it: the status word before what it vouches for.
#[inline(always)]
pub fn dma_rmb() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as in `dma_wmb`.
    unsafe {
        std::arch::asm!("dmb oshld", options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
    std::sync::atomic::fence(Ordering::SeqCst);
    compiler_fence(Ordering::Acquire);
}

/// Stores before it reach the device before loads after it look at what the device wrote: "I have
/// more for you" before "are you asleep?". Each side that stores and then looks needs it, or both
/// may look before either has stored, and sleep.
#[inline(always)]
pub fn dma_mb() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as in `dma_wmb`.
    unsafe {
        std::arch::asm!("dmb osh", options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    std::sync::atomic::fence(Ordering::SeqCst);
    compiler_fence(Ordering::SeqCst);
}
