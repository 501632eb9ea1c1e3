//! All that the file of a driver names, for one `use`: `use pinwire::nic::prelude::*`.

pub use std::os::fd::{AsFd, BorrowedFd};
pub use std::sync::Arc;
pub use std::time::Duration;

pub use super::parts::*;
pub use super::{
    DeviceId, Frame, Inspect, Link, Mac, Nic, NicConfig, NicDriver, OffloadFlags, QueuePair,
    Received, RxInfo, Stats, Wait, Waiting,
};
pub use crate::backend::Backend;
pub use crate::barrier::{dma_rmb, dma_wmb};
pub use crate::dma::{DmaBuf, DmaSpace, Iova, Pool};
pub use crate::error::{Error, Result};
pub use crate::inspect::{RegisterView, RingView};
pub use crate::irq::{Irq, IrqKind};
pub use crate::mmio::{Mmio, Place, RegInfo};
pub use crate::pci::config::{Command, Config};
pub use crate::ring_state::RingState;
