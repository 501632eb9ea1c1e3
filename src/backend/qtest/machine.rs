//! QEMU and all that its devices share: socket, memory, monitor, and the thread that reads.
//!
//! Every [`Qtest`](super::Qtest) of one QEMU has a part in it; QEMU ends with the last of them.

use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::cable::Cables;
use super::config::{HostBridge, inta, slots};
use super::files::Files;
use super::intx::Intx;
use super::mailbox::{self, Mailbox};
use super::memory::Memory;
use super::monitor::Monitor;
use super::qemu::{Launch, Qemu};
use super::spec::QtestSpec;
use super::wire::Wire;
use crate::dma::DmaSpace;
use crate::error::{Error, Result};

/// Longest time for one answer of QEMU, the first one included: it comes within a second, but the machine may be
/// busy.
const BOUND: Duration = Duration::from_secs(20);

/// A running QEMU.
pub(super) struct Machine {
    pub wire: Arc<Wire>,
    pub bridge: Arc<HostBridge>,
    pub mailbox: Arc<Mailbox>,
    pub monitor: Arc<Mutex<Monitor>>,
    pub dma: Arc<dyn DmaSpace>,
    qemu: Qemu,
    /// Starts QEMU and reads its answers.
    reader: Option<JoinHandle<()>>,
}

impl Machine {
    /// Starts QEMU with the devices of `specs` (see [`slots`]); gives their interrupt lines, too.
    pub fn start(name: &str, specs: &[&QtestSpec]) -> Result<(Self, Vec<Arc<Intx>>)> {
        let start = Instant::now();
        let cables = Cables::take(specs)?;
        let (launch, ends) = Launch::new(name, specs)?;
        let wire = Arc::new(Wire::new(ends.qtest, BOUND)?);
        let monitor = Arc::new(Mutex::new(Monitor::new(ends.monitor, BOUND)?));
        let files = Files::new(Arc::clone(&wire), Arc::clone(&monitor));
        let dma = Memory::new(name.to_owned(), &ends.ram, files)?;
        let bridge = Arc::new(HostBridge::new(Arc::clone(&wire)));
        let mailbox = Arc::new(Mailbox::new(Arc::clone(&wire), Arc::clone(&bridge)));
        let lines: Vec<_> = specs.iter().map(|_| Arc::new(Intx::default())).collect();

        let (started, starting) = mpsc::channel();
        let (their_wire, their_mailbox) = (Arc::clone(&wire), Arc::clone(&mailbox));
        let their_lines = lines.clone();
        let reader = std::thread::Builder::new()
            .name("qtest".to_owned())
            .spawn(move || {
                let qemu = launch.spawn();
                let up = qemu.is_ok();
                if started.send(qemu).is_ok() && up {
                    their_wire.read(|edge| {
                        if edge.line == mailbox::INTA && edge.high {
                            their_mailbox.ring();
                        }
                        for (slot, line) in slots().zip(&their_lines) {
                            if edge.line == inta(slot) {
                                line.set(edge.high);
                            }
                        }
                    });
                    their_lines.iter().for_each(|line| line.hang_up());
                }
                their_mailbox.hang_up();
            })
            .map_err(|error| Error::io("starting a thread", error))?;
        let mut qemu = starting.recv().map_err(|_| Error::Qemu {
            what: "the thread that starts QEMU has panicked".to_owned(),
            remedy: "see its message above".to_owned(),
        })??;

        // The interrupt controller's inputs come to us, not to it.
        let answer = wire.ask(format_args!("irq_intercept_in ioapic"));
        if answer.is_none() {
            return Err(qemu.failure(start.elapsed() >= BOUND));
        }
        // It has made its network before it answers.
        cables.taken()?;
        let (pid, took) = (qemu.pid(), start.elapsed());
        tracing::debug!("{name}: QEMU (process {pid}) came up in {took:?}");
        let machine = Self {
            wire,
            bridge,
            mailbox,
            monitor,
            dma,
            qemu,
            reader: Some(reader),
        };
        Ok((machine, lines))
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.qemu.pid()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // What still has a BAR or a mapping sees a device that is gone. The threads end with the
        // socket, and QEMU with the first of them, if it were not killed by the field that is dropped
        // next.
        self.wire.close();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.mailbox.join();
    }
}
