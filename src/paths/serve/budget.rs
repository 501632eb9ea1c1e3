//! So much of something, and no more: open files, memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is left of it, for all workers.
#[derive(Clone)]
pub struct Budget(Arc<AtomicUsize>);

/// A share of it, given back when dropped.
pub struct Taken {
    amount: usize,
    from: Budget,
}

impl Budget {
    /// All of `amount`.
    pub fn new(amount: usize) -> Self {
        Self(Arc::new(amount.into()))
    }

    /// Takes `amount`, if so much is left.
    pub fn take(&self, amount: usize) -> Option<Taken> {
        let less = |left: usize| left.checked_sub(amount);
        let order = Ordering::Relaxed;
        self.0.fetch_update(order, order, less).ok()?;
        Some(Taken {
            amount,
            from: self.clone(),
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.from.0.fetch_add(self.amount, Ordering::Relaxed);
    }
}
