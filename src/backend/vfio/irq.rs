//! Interrupts of a device: one eventfd a vector.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use vfio_bindings::bindings::vfio::*;
use vmm_sys_util::eventfd::EventFd;

use super::ioctl;
use crate::error::{Error, Result};
use crate::irq::{Departure, Irq, IrqKind, IrqLine};

/// The vectors of one device, of which one kind can be on at a time.
#[derive(Debug)]
pub struct Interrupts {
    device: Arc<File>,
    on: Cell<Option<IrqKind>>,
}

fn index(kind: IrqKind) -> u32 {
    match kind {
        IrqKind::Intx => VFIO_PCI_INTX_IRQ_INDEX,
        IrqKind::Msi => VFIO_PCI_MSI_IRQ_INDEX,
        IrqKind::MsiX => VFIO_PCI_MSIX_IRQ_INDEX,
    }
}

impl Interrupts {
    /// Those of `device`, all of them off.
    pub fn of(device: &Arc<File>) -> Self {
        Self {
            device: Arc::clone(device),
            on: Cell::new(None),
        }
    }

    /// Turns on the first `count` vectors of one kind; all must be off.
    pub fn enable(&self, name: &str, kind: IrqKind, count: usize) -> Result<Vec<Irq>> {
        let os = |source| Error::io(format!("{name}: turning on interrupts"), source);
        let info = ioctl::irq_info(&self.device, index(kind)).map_err(os)?;
        let usable = info.flags & VFIO_IRQ_INFO_EVENTFD != 0;
        if !usable || (info.count as usize) < count {
            return Err(Error::NotOffered {
                device: name.to_owned(),
                what: format!("{count} {kind:?} interrupts: it has {}", info.count),
            });
        }
        let event = |_| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(os);
        let events = (0..count).map(event).collect::<Result<Vec<_>>>()?;
        let fds: Vec<RawFd> = events.iter().map(AsRawFd::as_raw_fd).collect();
        if count > 0 {
            ioctl::trigger_events(&self.device, index(kind), &fds).map_err(os)?;
            self.on.set(Some(kind));
        }
        // Only what the kernel masks as it fires has to be unmasked.
        let masked = info.flags & VFIO_IRQ_INFO_AUTOMASKED != 0;
        let line = || Line(masked.then(|| (Arc::clone(&self.device), index(kind))));
        Ok(events
            .into_iter()
            .map(|event| Irq::new(event, Box::new(line())))
            .collect())
    }

    /// Are those of this kind on?
    pub fn is_on(&self, kind: IrqKind) -> bool {
        self.on.get() == Some(kind)
    }

    /// Turns off what is on, and says which kind that was.
    pub fn disable(&self) -> std::io::Result<Option<IrqKind>> {
        let kind = self.on.take();
        if let Some(kind) = kind {
            ioctl::disable_irqs(&self.device, index(kind))?;
        }
        Ok(kind)
    }
}

/// The kernel's wish to have the device back: it is being unplugged or unbound, and the kernel waits
/// until whoever has it lets go. Until then the device works as ever, so somebody must listen: a thread
/// of its own, that nobody who is busy with the device needs a system call to know.
#[derive(Debug)]
pub struct Request {
    departure: Arc<Departure>,
    /// Ends the thread.
    end: EventFd,
    listener: Option<JoinHandle<()>>,
}

impl Request {
    /// That of `device`; it never comes where the kernel has none.
    pub fn of(name: &str, device: &File) -> std::io::Result<Self> {
        let event = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let (request, end) = (event()?, event()?);
        let departure = Departure::of(name);
        let mut listener = None;
        if ioctl::irq_info(device, VFIO_PCI_REQ_IRQ_INDEX).is_ok_and(|info| info.count > 0) {
            ioctl::trigger_events(device, VFIO_PCI_REQ_IRQ_INDEX, &[request.as_raw_fd()])?;
            let (request, end) = (Irq::message(request), Irq::message(end.try_clone()?));
            let departure = Arc::clone(&departure);
            let listen = move || {
                if came_before(&request, &end) {
                    departure.announce();
                }
            };
            let thread = std::thread::Builder::new().name("vfio request".to_owned());
            listener = Some(thread.spawn(listen)?);
        }
        Ok(Self {
            departure,
            end,
            listener,
        })
    }

    /// Who tells of it.
    pub fn departure(&self) -> &Arc<Departure> {
        &self.departure
    }
}

/// Waits for one of the two: `true` where `request` came.
fn came_before(request: &Irq, end: &Irq) -> bool {
    const LONG: Duration = Duration::from_secs(24 * 60 * 60);
    loop {
        match Irq::wait_any([request, end], LONG) {
            Err(error) => {
                tracing::warn!("nobody listens whether the kernel wants the device back: {error}");
                return false;
            }
            Ok(_) if request.wait(Duration::ZERO).unwrap_or(false) => return true,
            Ok(_) if end.wait(Duration::ZERO).unwrap_or(false) => return false,
            Ok(_) => {}
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // Fails only where the counter is full: then it is readable anyhow.
        let _ = self.end.write(1);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// The one vector of a kind that must be unmasked, or a message, which need not.
struct Line(Option<(Arc<File>, u32)>);

impl IrqLine for Line {
    fn unmask(&self) -> Result<()> {
        match &self.0 {
            Some((device, index)) => ioctl::unmask_irq(device, *index)
                .map_err(|source| Error::io("unmasking an interrupt", source)),
            None => Ok(()),
        }
    }
}
