//! Message interrupts over qtest: a second device, QEMU's `edu`, is the mailbox.
//!
//! A message (MSI, MSI-X) is a write to an address, and QEMU lets a device's writes go to any. Here
//! they go to a register of `edu` that ORs what is written into its interrupt status and raises its
//! line, which we are told of as of any other. So one bit is one vector, of whichever device.
//!
//! Who rings is the thread that reads QEMU's answers; it must not wait for one, so a thread of the
//! mailbox's own looks which bits are set (QEMU, `docs/specs/edu.txt`).

use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::config::{HostBridge, Ports};
use super::wire::{Wire, lock};
use crate::error::{Error, Result};
use crate::irq::Irq;
use crate::pci::config::{BAR0, Command, Config};

/// Its slot on bus 0.
pub(super) const SLOT: u8 = 29;

/// Its input of the IOAPIC: q35 wires the slots from 25 on to PIRQ A to D, so no card shares it.
pub(super) const INTA: u32 = 16;

/// Address of its BAR: above all others.
pub(super) const BASE: u32 = 0xfdf0_0000;

/// Interrupt status: which bits were raised.
const STATUS: u32 = BASE + 0x24;
/// Raises the bits that are written.
const RAISE: u32 = BASE + 0x60;
/// Lowers the bits that are written.
const ACKNOWLEDGE: u32 = BASE + 0x64;

/// Vectors of all devices together: the bits of its status.
pub(super) const VECTORS: usize = 32;

/// Address and data of a vector's message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    pub address: u64,
    pub data: u32,
}

/// The mailbox of one QEMU.
pub(super) struct Mailbox {
    wire: Arc<Wire>,
    bridge: Arc<HostBridge>,
    state: Mutex<State>,
    changed: Condvar,
    /// Looks into it; started when it is first needed.
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    rung: bool,
    hung_up: bool,
    events: [Option<EventFd>; VECTORS],
}

/// Vectors that are connected; they are free again when dropped.
pub(super) struct Vectors {
    mailbox: Arc<Mailbox>,
    bits: Vec<usize>,
}

impl Mailbox {
    pub fn new(wire: Arc<Wire>, bridge: Arc<HostBridge>) -> Self {
        Self {
            wire,
            bridge,
            state: Mutex::default(),
            changed: Condvar::new(),
            thread: Mutex::default(),
        }
    }

    /// `count` vectors among the first `among` bits; `None` where so many are not free.
    pub fn connect(
        self: &Arc<Self>,
        count: usize,
        among: usize,
    ) -> Result<Option<(Vectors, Vec<Irq>)>> {
        let os = |error| Error::io("making an eventfd", error);
        self.open()?;
        let mut state = lock(&self.state);
        let free = (0..among).filter(|bit| state.events[*bit].is_none());
        let bits: Vec<usize> = free.take(count).collect();
        if bits.len() < count {
            return Ok(None);
        }
        let event = |_| {
            let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
            Ok((event.try_clone()?, event))
        };
        let events = bits.iter().map(event).collect::<std::io::Result<Vec<_>>>();
        let (ours, theirs): (Vec<_>, Vec<_>) = events.map_err(os)?.into_iter().unzip();
        for (bit, event) in bits.iter().zip(ours) {
            if state.hung_up {
                let _ = event.write(1);
            }
            state.events[*bit] = Some(event);
        }
        let vectors = Vectors {
            mailbox: Arc::clone(self),
            bits,
        };
        Ok(Some((
            vectors,
            theirs.into_iter().map(Irq::message).collect(),
        )))
    }

    /// Gives `edu` its address and starts the thread, once.
    fn open(self: &Arc<Self>) -> Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_some() {
            return Ok(());
        }
        let ports = Ports::new(Arc::clone(&self.bridge), 0, SLOT);
        ports.write(BAR0, &BASE.to_le_bytes())?;
        ports.command(Command::MEMORY, Command::empty())?;
        let mailbox = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name("qtest mailbox".to_owned())
            .spawn(move || mailbox.deliver());
        *thread = Some(started.map_err(|error| Error::io("starting a thread", error))?);
        Ok(())
    }

    /// Its line has risen.
    pub fn ring(&self) {
        lock(&self.state).rung = true;
        self.changed.notify_all();
    }

    /// QEMU is gone: wakes who waits, to see it for himself, and ends the thread.
    pub fn hang_up(&self) {
        let mut state = lock(&self.state);
        state.hung_up = true;
        for event in state.events.iter().flatten() {
            let _ = event.write(1);
        }
        self.changed.notify_all();
    }

    /// Waits for the thread, after [`Mailbox::hang_up`].
    pub fn join(&self) {
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    /// Passes on what was raised, until QEMU is gone: the body of the thread.
    fn deliver(&self) {
        let status = || self.wire.ask(format_args!("readl {STATUS:#x}"));
        loop {
            let mut state = lock(&self.state);
            while !state.rung && !state.hung_up {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(|dead| dead.into_inner());
            }
            if state.hung_up {
                return;
            }
            state.rung = false;
            drop(state);
            let mut raised = status().unwrap_or(0) as u32;
            while raised != 0 {
                self.wire
                    .post(format_args!("writel {ACKNOWLEDGE:#x} {raised:#x}"));
                // Acknowledged (an answer tells that the write before it has been done) before the
                // driver is told: a message in between would be taken back with this one.
                let next = status().unwrap_or(0) as u32;
                let state = lock(&self.state);
                for (bit, event) in state.events.iter().enumerate() {
                    if let Some(event) = event
                        && raised >> bit & 1 != 0
                    {
                        // Fails only where the counter is full: then it is readable anyhow.
                        let _ = event.write(1);
                    }
                }
                raised = next;
            }
        }
    }
}

impl Vectors {
    /// The vectors' messages.
    pub fn messages(&self) -> impl Iterator<Item = Message> {
        self.bits.iter().map(|bit| Message {
            address: RAISE.into(),
            data: 1 << bit,
        })
    }
}

impl Drop for Vectors {
    fn drop(&mut self) {
        let mut state = lock(&self.mailbox.state);
        for bit in &self.bits {
            state.events[*bit] = None;
        }
    }
}
