//! A bounded amount of something, such as open files or memory, given out in shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The rest of an amount, shared by all workers.
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
