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
use crate::irq::{Irq, IrqKind, IrqLine, Removal, Why};

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

    /// Returns whether those of this kind are on.
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

/// The kernel's news of the device, beside the device's own interrupts.
///
/// It wants the device back: it is being unplugged or unbound, and the kernel waits until whoever has it
/// lets go. Or it heard of an error that PCI Express does not correct (AER), which it leaves to whoever has
/// the device. In between the device works as ever, or seems to, so somebody must listen: a thread of its
/// own, that nobody who is busy with the device needs a system call to know.
#[derive(Debug)]
pub struct News {
    removal: Arc<Removal>,
    /// Ends the thread.
    end: EventFd,
    listener: Option<JoinHandle<()>>,
}

/// The kernel's own interrupts of a device, and what each means. Only a function on PCI Express has errors.
const KINDS: [(u32, Why); 2] = [
    (VFIO_PCI_REQ_IRQ_INDEX, Why::Removal),
    (VFIO_PCI_ERR_IRQ_INDEX, Why::BusError),
];

impl News {
    /// That of `device`; none comes where the kernel has none.
    pub fn of(name: &str, device: &File) -> std::io::Result<Self> {
        let event = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let end = event()?;
        let removal = Removal::of(name);
        let mut kinds = Vec::new();
        for (index, why) in KINDS {
            if ioctl::irq_info(device, index).is_ok_and(|info| info.count > 0) {
                let event = event()?;
                ioctl::trigger_events(device, index, &[event.as_raw_fd()])?;
                kinds.push((Irq::message(event), why));
            }
        }
        let mut listener = None;
        if !kinds.is_empty() {
            let end = Irq::message(end.try_clone()?);
            let removal = Arc::clone(&removal);
            let listen = move || {
                if let Some(why) = first_of(&kinds, &end) {
                    removal.announce(why);
                }
            };
            let thread = std::thread::Builder::new().name("vfio request".to_owned());
            listener = Some(thread.spawn(listen)?);
        }
        Ok(Self {
            removal,
            end,
            listener,
        })
    }

    /// The announcement that it makes.
    pub fn removal(&self) -> &Arc<Removal> {
        &self.removal
    }
}

/// Waits for one of `kinds`: what it means; `None` where the end came before.
fn first_of(kinds: &[(Irq, Why)], end: &Irq) -> Option<Why> {
    const LONG: Duration = Duration::from_secs(24 * 60 * 60);
    let came = |irq: &Irq| irq.wait(Duration::ZERO).unwrap_or(false);
    loop {
        let all = kinds.iter().map(|(irq, _)| irq).chain([end]);
        if let Err(error) = Irq::wait_any(all, LONG) {
            tracing::warn!("nobody listens to what the kernel says of the device: {error}");
            return None;
        }
        if let Some((_, why)) = kinds.iter().find(|(irq, _)| came(irq)) {
            return Some(*why);
        }
        if came(end) {
            return None;
        }
    }
}

impl Drop for News {
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
