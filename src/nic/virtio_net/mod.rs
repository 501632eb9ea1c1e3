//! virtio-net, §5.1 of the specification (virtio 1.2): the modern interface, split and packed queues.
//!
//! The order of [`VirtioNet::start`] is that of §3.1.1: reset, features, queues, DRIVER_OK. The card
//! owns its pairs, the pairs own what the device can reach, and the device is reset before they go.
//! What is read beside the specification: [`features`] §5.1.3, [`config`] §5.1.4, [`header`] §5.1.6.

#![warn(clippy::arithmetic_side_effects)] // numbers of a device: checked, or wrapped on purpose

pub mod config;
mod control;
pub mod features;
pub mod header;
mod pair;
mod rx;
mod settings;
mod tx;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

pub use rx::BUFFER;
pub use settings::VirtioNetConfig;
use tx::TAG;
pub use tx::{MAX_FRAME, MIN_FRAME};

use self::config::{HashTypes, NetConfig};
use self::control::{Control, Queue};
use self::features as f;
use self::pair::{NetPair, Pair};
use self::rx::Rx;
use self::tx::Tx;
use super::longest::Longest;
use super::{
    DeviceId, Inspect, Link, Mac, Nic, NicConfig, QueuePair, RSS_KEY, Stats, VLANS, Waiting,
    await_link, check_vlans,
};
use crate::dma::{DmaBuf, DmaSpace, Pool};
use crate::error::{Error, Result};
use crate::inspect::{FeatureView, RegisterView, RingView};
use crate::irq::{Irq, IrqKind};
use crate::mmio::{Place, RegInfo};
use crate::nic::{Frame, OffloadFlags};
use crate::ring_state::RingState;
use crate::virtio::features::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, NOTIFICATION_DATA, RING_PACKED};
use crate::virtio::{Areas, Packed, Ring, RingConfig, Split, Status, Transport, pci};

/// A network card's device type, §5.
const NETWORK: u16 = 1;
/// The smallest MTU that a device may have, §5.1.4.1.
const MIN_MTU: usize = 68;
/// Descriptors of the control queue, where the device has so many.
const CONTROL_RING: usize = 64;
/// The most descriptors that a queue may have, §2.7 and §2.8.
const LARGEST: u16 = 0x8000;
/// The most queue pairs that a device may have, §5.1.4.1.
const MAX_PAIRS: u16 = 0x8000;
/// Entries of the indirection table, where the device has room for so many.
const RSS_TABLE: usize = 128;
/// The longest frame that can come in: 65562 bytes with the header, §5.1.6.3.1.
const LONGEST: usize = 65_550;
/// Longest time for which the device may stand still.
const STUCK: Duration = Duration::from_secs(2);

/// The cards that this driver knows, §4.1.2 and §4.1.2.1.
pub fn devices() -> impl Iterator<Item = DeviceId> {
    let modern = DeviceId::new(pci::VENDOR, pci::MODERN + NETWORK, "virtio-net");
    let transitional = DeviceId::new(pci::VENDOR, pci::TRANSITIONAL, "virtio-net, transitional");
    [modern, transitional].into_iter()
}

/// A started card. Dropping it stops the device, then frees the memory that the device could reach.
pub struct VirtioNet<T: Transport> {
    // Dropped in this order, after `Drop::drop` has stopped the device.
    pairs: Vec<Box<dyn NetPair<T::Doorbell>>>,
    control: Option<Box<dyn Control<T::Doorbell>>>,
    transport: T,
    config: NicConfig,
    /// Features.
    offered: u64,
    negotiated: u64,
    /// Its configuration when it was started.
    device: NetConfig,
    mac: Mac,
    max_frame: usize,
    /// True if each pair has an MSI-X vector.
    msix: bool,
    /// The VLANs that come in; `None` where the device has not said that it did what was asked.
    vlans: Box<[Option<bool>]>,
    /// The states of its rings, each once.
    states: Vec<RingState>,
    /// True if it was started, and not stopped since.
    running: bool,
    /// True if it was reset, and not touched since.
    is_reset: bool,
}

impl<T: Transport + 'static> VirtioNet<T> {
    /// Resets the card and starts it.
    ///
    /// # Errors
    /// A device of another kind, one that does not reset, does not offer what must be there, or has
    /// no link within [`NicConfig::link_wait`]; or no memory for its queues.
    pub fn start(transport: T, config: &NicConfig) -> Result<Self> {
        if config.max_frame > LONGEST {
            return Err(Error::Usage(format!(
                "frames of {} bytes: the card receives up to {LONGEST}",
                config.max_frame
            )));
        }
        if transport.device_type() != NETWORK {
            return Err(transport.refused(&format!(
                "be a network card: it is a virtio device of type {}",
                transport.device_type()
            )));
        }
        let mut offered = transport.begin_init()?;
        let mut negotiated = f::choose(offered, config);
        let mut device = negotiate(&transport, negotiated)?;
        if negotiated & f::CTRL_VQ != 0
            && let Err(why) = control_queue(&transport, &device, negotiated)
        {
            if config.queues > 1 {
                return Err(transport.refused(&format!(
                    "work with {} queue pairs, which are asked for on the control queue: {why}",
                    config.queues
                )));
            }
            tracing::warn!(
                "{}: its control queue is not used, so it lets in what it likes: {why}",
                transport.name()
            );
            offered = transport.begin_init()?;
            negotiated = f::choose(offered & !f::CTRL_VQ, config);
            device = negotiate(&transport, negotiated)?;
        }
        let device_pairs = device.pairs.unwrap_or(1);
        if config.queues == 0 || config.queues > usize::from(device_pairs) {
            return Err(transport.refused(&format!(
                "work with {} queue pairs: it has {device_pairs}\n  QEMU: -device virtio-net-pci,mq=on,\
                 vectors=... and a -netdev tap with queues=...",
                config.queues
            )));
        }
        // From here on dropping the card stops it, whatever fails.
        let mut card = Self {
            pairs: Vec::new(),
            control: None,
            config: config.clone(),
            offered,
            negotiated,
            device,
            mac: device.mac.unwrap_or_else(made_up_mac),
            max_frame: device
                .mtu
                .map_or(MAX_FRAME, |mtu| mtu.saturating_add(MIN_FRAME)),
            msix: false,
            vlans: vec![Some(false); VLANS].into(),
            states: Vec::new(),
            running: false,
            is_reset: false,
            transport,
        };
        let irqs = card.interrupts()?;
        if negotiated & RING_PACKED == 0 {
            card.make_queues::<Split<DmaBuf>, Split<Frame>, Split<usize>>(irqs)?;
        } else {
            card.make_queues::<Packed<DmaBuf>, Packed<Frame>, Packed<usize>>(irqs)?;
        }
        card.run()?;
        Ok(card)
    }

    /// An interrupt for each pair: MSI-X, or for a lone pair INTx.
    fn interrupts(&mut self) -> Result<Vec<Irq>> {
        let count = self.config.queues;
        if self.config.waiting == Waiting::Poll {
            return (0..count).map(|_| Irq::never()).collect();
        }
        if self.transport.vectors() >= count {
            match self.transport.interrupts(IrqKind::MsiX, count) {
                // A backend that has no messages; one that fails otherwise says so.
                Err(Error::NotOffered { .. }) if count == 1 => {}
                irqs => {
                    self.msix = irqs.is_ok();
                    return irqs;
                }
            }
        }
        if count == 1 {
            return self.transport.interrupts(IrqKind::Intx, 1);
        }
        Err(self.transport.refused(&format!(
            "interrupt for each of {count} queue pairs: it has {} MSI-X vectors\n  \
             QEMU: -device virtio-net-pci,vectors=...; or poll (Waiting::Poll)",
            self.transport.vectors()
        )))
    }

    /// The MSI-X vector of pair `pair`.
    fn vector(&self, pair: usize) -> Option<u16> {
        self.msix.then_some(pair as u16)
    }

    /// An empty ring for queue `index`: of `size` descriptors, or of as many as the device can have.
    fn ring<V, R: Ring<V>>(&self, index: u16, size: usize, what: &str) -> Result<R> {
        let packed = self.negotiated & RING_PACKED != 0;
        if !(2..=usize::from(LARGEST)).contains(&size) || !(packed || size.is_power_of_two()) {
            let kind = if packed {
                "it must be"
            } else {
                "it must be a power of two"
            };
            return Err(Error::Usage(format!(
                "a ring of {size} descriptors ({what}): {kind} from 2 to {LARGEST}"
            )));
        }
        let most = self.transport.queue_size_max(index);
        let usable = usable(most, size, packed);
        if usable == 0 {
            return Err(self.transport.refused(&format!(
                "be driven: its queue {index} ({what}) has no descriptors"
            )));
        }
        if usize::from(usable) < size {
            tracing::warn!(
                "{}: {usable} descriptors instead of {size} ({what}), since its queue {index} has up to \
                 {most}\n  QEMU: -device virtio-net-pci,rx_queue_size=...,tx_queue_size=...",
                self.transport.name()
            );
        }
        let config = RingConfig {
            device: self.transport.name().to_owned(),
            index,
            size: usable,
            event_idx: self.negotiated & EVENT_IDX != 0,
            indirect: self.negotiated & INDIRECT_DESC != 0,
            in_order: self.negotiated & IN_ORDER != 0,
            notification_data: self.negotiated & NOTIFICATION_DATA != 0,
        };
        R::new(self.transport.dma(), &config)
    }

    /// A state for `queues`: one of their own, where the device can stop them alone, or everybody's.
    fn state(&mut self, queues: Vec<u16>) -> RingState {
        if !self.transport.resets_queues()
            && let Some(all) = self.states.first()
        {
            return all.clone();
        }
        let state = RingState::new(
            self.transport.name(),
            self.transport.removal(),
            self.transport.halt(queues),
        );
        self.states.push(state.clone());
        state
    }

    /// Makes the queues and tells the device of them. It does not work on them before DRIVER_OK.
    fn make_queues<RX, TX, C>(&mut self, irqs: Vec<Irq>) -> Result<()>
    where
        RX: Ring<DmaBuf> + 'static,
        TX: Ring<Frame> + 'static,
        C: Ring<usize> + 'static,
    {
        let dma = Arc::clone(self.transport.dma());
        let name = self.transport.name().to_owned();
        for (index, irq) in irqs.into_iter().enumerate() {
            let (numbers, vector) = (numbers_of(index), self.vector(index));
            let mut rx: RX = self.ring(numbers[0], self.config.rx_ring, "rx_ring")?;
            let mut tx: TX = self.ring(numbers[1], self.config.tx_ring, "tx_ring")?;
            let state = self.state(numbers.to_vec());
            rx.share(&state);
            tx.share(&state);
            let [rx_bell, tx_bell] = self.enable(
                numbers,
                [
                    (rx.size() as u16, rx.areas()),
                    (tx.size() as u16, tx.areas()),
                ],
                vector,
            )?;
            let buffer = self.rx_buffer();
            self.pairs.push(Box::new(Pair {
                rx: Rx::new(rx, rx_bell, &dma, buffer, self.negotiated)?,
                tx: Tx::new(tx, tx_bell, &name, &dma, self.negotiated, self.max_frame)?,
                irq,
                waiting: self.config.waiting,
                longest: Longest::new(&self.config),
                isr: (!self.msix && self.config.waiting != Waiting::Poll)
                    .then(|| self.transport.isr()),
                state,
            }));
        }
        if self.negotiated & f::CTRL_VQ != 0 {
            let (index, size) = control_queue(&self.transport, &self.device, self.negotiated)
                .map_err(|why| self.transport.refused(&format!("be asked: {why}")))?;
            let mut ring: C = self.ring(index, size.into(), "control queue")?;
            ring.share(&self.state(vec![index]));
            let bell = self
                .transport
                .enable_queue(index, size, ring.areas(), None)?;
            self.control = Some(Box::new(Queue::new(ring, index, bell, &name, &dma)?));
        }
        Ok(())
    }

    /// Tells the device of a receive and a transmit queue, which have these numbers.
    fn enable(
        &self,
        numbers: [u16; 2],
        [rx, tx]: [(u16, Areas); 2],
        vector: Option<u16>,
    ) -> Result<[T::Doorbell; 2]> {
        let enable = |index, (size, areas)| self.transport.enable_queue(index, size, areas, vector);
        Ok([enable(numbers[0], rx)?, enable(numbers[1], tx)?])
    }

    /// Bytes of a receive buffer: without MRG_RXBUF a frame must fit into one.
    fn rx_buffer(&self) -> usize {
        const UNCUT: u64 = f::GUEST_TSO4 | f::GUEST_TSO6 | f::GUEST_USO4 | f::GUEST_USO6;
        match self.negotiated {
            negotiated if negotiated & f::MRG_RXBUF != 0 => BUFFER,
            negotiated if negotiated & UNCUT != 0 => LONGEST,
            _ => {
                let mtu = match self.negotiated & f::MTU {
                    0 => 0,
                    _ => self.max_frame.saturating_add(TAG),
                };
                BUFFER.max(self.config.max_frame).max(mtu)
            }
        }
    }

    /// The queues are set up: lets the device work on them.
    fn run(&mut self) -> Result<()> {
        self.transport.set_config_vector(self.vector(0))?;
        self.transport.bus_master(true)?;
        self.transport.set_status(
            Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK,
        );
        for state in &self.states {
            state.start();
        }
        self.filter()?;
        self.configure_rss()?;
        // Not before: until it is told, a device lets in all.
        for pair in &mut self.pairs {
            pair.refill();
        }
        self.running = true;
        await_link(self, self.config.link_wait)
    }

    /// Sets the filters that are in force from the first: our own frames, those to all, and all VLANs come in.
    fn filter(&mut self) -> Result<()> {
        if self.negotiated & f::CTRL_RX != 0 {
            self.set_promiscuous(self.config.promiscuous)?;
            self.set_multicast(&[])?;
        }
        self.vlans.fill(Some(false));
        // A device with this feature lets none in by itself.
        if self.negotiated & f::CTRL_VLAN != 0 {
            self.set_vlans(None)?;
        }
        Ok(())
    }

    /// Spreads frames over the pairs.
    fn configure_rss(&mut self) -> Result<()> {
        let pairs = self.config.queues as u16;
        if pairs == 1 {
            return Ok(());
        }
        let Some(rss) = self.device.rss else {
            let pairs = pairs.to_le_bytes().to_vec();
            return self.command(control::MQ_VQ_PAIRS_SET, pairs);
        };
        // The mask wants a power of two.
        let entries = rss.table_len.min(RSS_TABLE);
        let key = RSS_KEY
            .get(..rss.key_size.min(RSS_KEY.len()))
            .unwrap_or(&[]);
        if entries == 0 || rss.types & HashTypes::KNOWN == 0 {
            return Err(Error::ProtocolViolation {
                device: self.transport.name().to_owned(),
                what: format!("it offers RSS, with {rss:?}"),
            });
        }
        let entries = 1 << entries.ilog2();
        let data = control::rss(rss.types & HashTypes::KNOWN, entries, pairs, key);
        self.command(control::MQ_RSS_CONFIG, data)
    }

    /// Tells the network where the card is, and the device that it was told, where the device asks for it,
    /// §5.1.6.5.4.
    fn announce(&mut self) -> Result<()> {
        let status = self
            .transport
            .read_config(|config| NetConfig::read(config, f::STATUS))?;
        if !status.announce() {
            return Ok(());
        }
        // All ones is a device that is gone, not one that asks; its registers go before the rest of it.
        self.transport.check_present()?;
        if self.reads_as_ones() {
            return Ok(());
        }
        if !self.pairs[0].announce(self.mac) {
            return Ok(());
        }
        match self.command(control::ANNOUNCE_ACK, Vec::new()) {
            // The network knows it; the device will ask again, which does no harm.
            Err(refused @ Error::NotOffered { .. }) => tracing::warn!("{refused}"),
            other => other?,
        }
        Ok(())
    }

    /// Asks the device for something.
    fn command(&mut self, command: control::Command, data: Vec<u8>) -> Result<()> {
        self.commands(command, &[data])
    }

    fn commands(&mut self, command: control::Command, all: &[Vec<u8>]) -> Result<()> {
        let Some(control) = &mut self.control else {
            return Err(self
                .transport
                .refused("be asked: it has no control queue (VIRTIO_NET_F_CTRL_VQ)"));
        };
        let done = control.commands(command, all);
        if matches!(done, Err(Error::Timeout { .. })) {
            // Who is gone does not answer.
            self.transport.check_present()?;
        }
        done
    }

    /// Returns whether the device's registers are gone.
    fn reads_as_ones(&self) -> bool {
        self.transport.status() == Status::from_bits_retain(u8::MAX)
    }

    /// The features that were agreed on.
    pub fn negotiated(&self) -> u64 {
        self.negotiated
    }

    /// The transport.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// Checks that `feature` is among those that were negotiated.
    fn require(&self, feature: u64, name: &str) -> Result<()> {
        match self.negotiated & feature {
            0 => Err(self.transport.refused(&format!(
                "do this: VIRTIO_NET_F_{name} is not among the features agreed on"
            ))),
            _ => Ok(()),
        }
    }
}

/// Takes the features, and what the device then says of itself.
fn negotiate<T: Transport>(transport: &T, negotiated: u64) -> Result<NetConfig> {
    transport.negotiate(negotiated)?;
    let device = transport.read_config(|config| NetConfig::read(config, negotiated))?;
    let lied = |what| Error::ProtocolViolation {
        device: transport.name().to_owned(),
        what,
    };
    if let Some(mtu) = device.mtu.filter(|mtu| *mtu < MIN_MTU) {
        return Err(lied(format!(
            "an MTU of {mtu} bytes: it must be {MIN_MTU} at least"
        )));
    }
    match device.pairs {
        Some(pairs) if !(1..=MAX_PAIRS).contains(&pairs) => Err(lied(format!(
            "{pairs} queue pairs (max_virtqueue_pairs): there are 1 to {MAX_PAIRS}"
        ))),
        _ => Ok(device),
    }
}

/// The control queue's number (§5.1.2: it comes after all pairs that the device has, used or not) and how
/// many descriptors it gets; else why it cannot be used.
fn control_queue<T: Transport>(
    transport: &T,
    device: &NetConfig,
    negotiated: u64,
) -> Result<(u16, u16), String> {
    let number = u32::from(device.pairs.unwrap_or(1)) << 1;
    let Ok(index) = u16::try_from(number) else {
        return Err(format!(
            "its control queue would be number {number}, and numbers have 16 bits"
        ));
    };
    let most = transport.queue_size_max(index);
    match usable(most, CONTROL_RING, negotiated & RING_PACKED != 0) {
        size @ 2.. => Ok((index, size)),
        _ => Err(format!(
            "its control queue (number {index}) has {most} descriptors, and a command takes 2"
        )),
    }
}

/// The numbers of a pair's queues, receive first, §5.1.2. There are no more than [`MAX_PAIRS`], so that
/// they have 16 bits.
fn numbers_of(pair: usize) -> [u16; 2] {
    let first = (pair as u16) << 1;
    [first, first | 1]
}

/// Descriptors of a queue that may have up to `most`, where `wanted` are wished for: a split one has a
/// power of two (§2.7), a packed one any number (§2.8.10.1).
fn usable(most: u16, wanted: usize, packed: bool) -> u16 {
    let size = u16::try_from(wanted).unwrap_or(LARGEST);
    let size = size.min(most).min(LARGEST);
    match size.checked_ilog2() {
        Some(log) if !packed => 1 << log,
        _ => size,
    }
}

/// An address of our own for a card that has none: locally administered, another each time.
fn made_up_mac() -> Mac {
    let [a, b, c, d, e, g, ..] = RandomState::new().hash_one("virtio-net").to_le_bytes();
    Mac([a & !1 | 2, b, c, d, e, g])
}

/// All registers, with those of the transport.
static TABLE: LazyLock<Vec<RegInfo>> = LazyLock::new(|| {
    let transport = [
        pci::regs::COMMON,
        pci::regs::QUEUE,
        pci::regs::NOTIFY,
        pci::regs::ISR,
    ];
    transport
        .into_iter()
        .chain([config::TABLE])
        .flatten()
        .copied()
        .collect()
});

impl<T: Transport + 'static> Inspect for VirtioNet<T> {
    fn features(&self) -> Vec<FeatureView> {
        f::views(self.offered, self.negotiated)
    }

    fn register_table(&self) -> &'static [RegInfo] {
        &TABLE
    }

    fn register_at(&self, place: Place) -> Option<(&'static RegInfo, usize)> {
        self.transport.register_at(place, config::TABLE)
    }

    fn registers(&self) -> Vec<RegisterView> {
        let mut views = self.transport.registers(config::TABLE);
        let ours = config::TABLE[0].group;
        views
            .retain(|view| view.info.group != ours || config::has(view.info.name, self.negotiated));
        views
    }

    fn rings(&self) -> Vec<RingView> {
        let pairs = self.pairs.iter().enumerate();
        let pairs = pairs.flat_map(|(index, pair)| pair.views(index));
        let control = self.control.iter().map(|control| control.view());
        pairs.chain(control).collect()
    }
}

impl<T: Transport + 'static> Nic for VirtioNet<T> {
    fn name(&self) -> &str {
        self.transport.name()
    }

    fn model(&self) -> &'static str {
        match self.negotiated & RING_PACKED {
            0 => "virtio-net, split queues",
            _ => "virtio-net, packed queues",
        }
    }

    fn mac(&self) -> Mac {
        self.mac
    }

    fn link(&self) -> Link {
        const LINK: u64 = f::STATUS | f::SPEED_DUPLEX;
        let read = self
            .transport
            .read_config(|config| NetConfig::read(config, self.negotiated & LINK));
        let device = read.unwrap_or_default();
        let (mbps, full_duplex) = device.speed.unwrap_or((0, true));
        Link {
            up: !self.reads_as_ones() && device.link_up(),
            mbps,
            full_duplex,
        }
    }

    fn min_tx_frame(&self) -> usize {
        MIN_FRAME
    }

    fn max_tx_frame(&self) -> usize {
        self.max_frame
    }

    /// A ring is no longer than the device can have it.
    fn tx_capacity(&self, ring: usize) -> usize {
        let made = self.pairs.first().map(|pair| pair.areas()[1].0);
        made.map_or(ring, |made| ring.min(made.into()))
    }

    fn offloads(&self) -> OffloadFlags {
        f::offloads(self.negotiated)
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        self.transport.dma()
    }

    fn queues(&self) -> usize {
        self.pairs.len()
    }

    fn pair(&self, index: usize) -> &dyn QueuePair {
        self.pairs[index].queue_pair()
    }

    fn pair_mut(&mut self, index: usize) -> &mut dyn QueuePair {
        self.pairs[index].queue_pair_mut()
    }

    fn split(&mut self) -> Vec<&mut dyn QueuePair> {
        let pairs = self.pairs.iter_mut();
        pairs.map(|pair| pair.queue_pair_mut()).collect()
    }

    fn wait(&mut self, timeout: Duration) -> Result<bool> {
        let came = self.pairs[0].wait(timeout)?;
        self.service()?;
        Ok(came)
    }

    /// Tells the network where the card is, where the device asks for it. It is not asked whether it does while there
    /// is work: to read its configuration takes longer than a frame.
    fn service(&mut self) -> Result<()> {
        self.pairs[0].check_running()?;
        if self.negotiated & f::GUEST_ANNOUNCE != 0 && !self.pairs[0].is_ready() {
            self.announce()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        self.transport.check_present()?;
        match self.transport.status() {
            status if status.contains(Status::DEVICE_NEEDS_RESET) => Err(Error::NeedsReset {
                device: self.name().to_owned(),
            }),
            status if self.running && !status.contains(Status::DRIVER_OK) => Err(Error::WasReset {
                device: self.name().to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// The device counts nothing: these are the frames that passed through the rings, and what it dropped
    /// for want of a buffer nobody knows.
    fn stats(&mut self) -> Stats {
        let mut stats = Stats::default();
        for pair in &self.pairs {
            pair.count(&mut stats);
        }
        stats
    }

    fn set_promiscuous(&mut self, on: bool) -> Result<()> {
        self.require(f::CTRL_RX, "CTRL_RX")?;
        self.command(control::RX_PROMISC, vec![on.into()])?;
        self.command(control::RX_ALLMULTI, vec![on.into()])
    }

    /// Sets the table of addresses, with our own among them, which the device need not know: where it has none, we
    /// made one up.
    fn set_multicast(&mut self, groups: &[Mac]) -> Result<()> {
        self.require(f::CTRL_RX, "CTRL_RX")?;
        self.command(
            control::MAC_TABLE_SET,
            control::mac_tables(&[self.mac], groups),
        )
    }

    fn set_vlans(&mut self, vlans: Option<&[u16]>) -> Result<()> {
        check_vlans(vlans.unwrap_or_default())?;
        if !self.config.vlan_filter {
            return Err(self
                .transport
                .refused("filter VLANs: start it with NicConfig::vlan_filter"));
        }
        self.require(f::CTRL_VLAN, "CTRL_VLAN")?;
        let wanted = |vlan: u16| vlans.is_none_or(|vlans| vlans.contains(&vlan));
        let changed = |to: bool| -> Vec<u16> {
            let all = self.vlans.iter().zip(0..);
            all.filter(|&(&now, vlan)| now != Some(to) && wanted(vlan) == to)
                .map(|(_, vlan)| vlan)
                .collect()
        };
        for (to, command, changed) in [
            (true, control::VLAN_ADD, changed(true)),
            (false, control::VLAN_DEL, changed(false)),
        ] {
            let data: Vec<_> = changed
                .iter()
                .map(|vlan| vlan.to_le_bytes().to_vec())
                .collect();
            // After a no it is not known which of them it did.
            for vlan in &changed {
                self.vlans[usize::from(*vlan)] = None;
            }
            self.commands(command, &data)?;
            for vlan in changed {
                self.vlans[usize::from(vlan)] = Some(to);
            }
        }
        Ok(())
    }

    fn limit(&mut self, len: usize, batch: usize, frames: u64) -> Result<Duration> {
        if !(MIN_FRAME..=BUFFER).contains(&len) {
            return Err(Error::Usage(format!(
                "frames of {len} bytes: {MIN_FRAME} to {BUFFER} can be measured"
            )));
        }
        let pool = Pool::new(self.transport.dma(), 1, BUFFER)?;
        let mut buf = pool.alloc().expect("a fresh pool has a buffer");
        let mut content = vec![0; len.max(MIN_FRAME)];
        // To an address that nobody has (locally administered): no receiver shall be kept busy.
        content[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0]);
        content[6..12].copy_from_slice(&self.mac.0);
        buf.fill(&content);
        let begin = Instant::now();
        let mut frame = Frame::from(buf);
        let measured = self.pairs[0].limit(&mut frame, batch, frames, STUCK);
        let took = begin.elapsed();
        if let Err(error @ Error::Timeout { .. }) = measured {
            // The device must not be reading the buffer when it is freed; where it does not stop, it
            // never is.
            if let Err(error) = self.stop() {
                frame.quarantine();
                return Err(error);
            }
            return Err(error);
        }
        measured?;
        Ok(took)
    }

    fn stop(&mut self) -> Result<()> {
        match self.is_reset {
            true => self.transport.removal().check(),
            false => self.halt(),
        }
    }

    fn restart(&mut self) -> Result<Vec<Frame>> {
        self.halt()?;
        let begun = self.begin_again();
        if begun.is_err() {
            self.stop()?;
        }
        begun
    }
}

impl<T: Transport + 'static> VirtioNet<T> {
    /// Stops the rings, then resets the device.
    fn halt(&mut self) -> Result<()> {
        self.running = false;
        for pair in &mut self.pairs {
            pair.stop();
        }
        if let Some(control) = &mut self.control {
            control.stop();
        }
        let reset = self.transport.reset();
        let off = self.transport.bus_master(false);
        let stopped = reset.and(off);
        self.is_reset = stopped.is_ok();
        // A device that is gone reads as one that never ends its reset.
        self.transport.check_present()?;
        stopped
    }

    /// Resets the queues of a stopped card and sets it up again with the same features, for [`Nic::restart`].
    fn begin_again(&mut self) -> Result<Vec<Frame>> {
        self.is_reset = false;
        let mut in_flight = Vec::new();
        for pair in &mut self.pairs {
            in_flight.append(&mut pair.reset());
        }
        if let Some(control) = &mut self.control {
            control.reset();
        }
        let offered = self.transport.begin_init()?;
        if offered & self.negotiated != self.negotiated {
            return Err(Error::ProtocolViolation {
                device: self.name().to_owned(),
                what: format!(
                    "it does not offer features any more that it had: {:#x}",
                    self.negotiated & !offered
                ),
            });
        }
        self.transport.negotiate(self.negotiated)?;
        for index in 0..self.pairs.len() {
            let areas = self.pairs[index].areas();
            let doorbells = self.enable(numbers_of(index), areas, self.vector(index))?;
            self.pairs[index].set_doorbells(doorbells);
        }
        if let Some(control) = &mut self.control {
            let (index, size, areas) = control.areas();
            let doorbell = self.transport.enable_queue(index, size, areas, None)?;
            control.set_doorbell(doorbell);
        }
        let negotiated = self.negotiated;
        let device = self
            .transport
            .read_config(|config| NetConfig::read(config, negotiated))?;
        // Its buffers and rings were made for what it was.
        if !device.is_same_card(&self.device) {
            return Err(Error::ProtocolViolation {
                device: self.name().to_owned(),
                what:
                    "its address, MTU or number of queue pairs is not what it was before the reset"
                        .to_owned(),
            });
        }
        self.run()?;
        Ok(in_flight)
    }
}

impl<T: Transport> Drop for VirtioNet<T> {
    fn drop(&mut self) {
        let reset = self.transport.reset();
        let off = self.transport.bus_master(false);
        if let Err(error) = reset.and(off) {
            tracing::error!("{error}");
            // One that is not there only says so, by ones in config space: its own memory, all that it
            // could write, is nobody else's again. What others gave it to read returns.
            let is_absent = self.transport.is_absent();
            for pair in &mut self.pairs {
                if is_absent {
                    drop(pair.reset());
                }
                pair.quarantine();
            }
            if let Some(control) = &mut self.control {
                control.quarantine();
            }
        }
    }
}
