//! Intel 8254x: 82540EM, 82544GC and 82545EM.
pub mod desc;
pub mod regs;
