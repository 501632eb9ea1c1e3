//! Fake cards, and the cable of one: what it sent, and what comes to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pinwire::backend::{Fake, FakeMemory};
use pinwire::nic::{Nic, NicConfig};
use pinwire::testing::{Card, Wire};
use pinwire::{Result, open};

use crate::fakes::e1000::FakeE1000;
use crate::fakes::e1000e::FakeE1000e;
use crate::fakes::virtio::net::{
    ACCESS_PLATFORM, CTRL_RX, CTRL_VQ, EVENT_IDX, FakeVirtioNet, INDIRECT, MRG_RXBUF, PACKED, PLAIN,
};

/// By the names that the table has for them.
pub const CARDS: [&str; 4] = [
    "fake:e1000",
    "fake:e1000e",
    "fake:virtio-net",
    "fake:virtio-net,packed=on",
];

/// One of [`CARDS`].
pub struct FakeCard(pub &'static str);

impl Card for FakeCard {
    fn name(&self) -> &str {
        self.0
    }

    fn start(&self, config: &NicConfig) -> Result<(Box<dyn Nic>, Box<dyn Wire>)> {
        let (nic, cable) = start(self.0, config)?;
        Ok((nic, Box::new(cable)))
    }

    fn is_fake(&self) -> bool {
        true
    }
}

/// The far end of a fake card's cable.
pub struct Cable {
    memory: Arc<FakeMemory>,
    card: Fakes,
}

enum Fakes {
    E1000(Arc<Mutex<FakeE1000>>),
    E1000e(Arc<Mutex<FakeE1000e>>),
    Virtio(Arc<Mutex<FakeVirtioNet>>),
}

/// The card, which a panicking test must not hide.
fn lock<T>(card: &Mutex<T>) -> MutexGuard<'_, T> {
    card.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the card of that name; gives the other end of its cable, too.
fn start(name: &str, config: &NicConfig) -> Result<(Box<dyn Nic>, Cable)> {
    let (fake, card): (Fake, Fakes) = match name {
        "fake:e1000" => {
            let (fake, card) = FakeE1000::fake();
            (fake, Fakes::E1000(card))
        }
        "fake:e1000e" => {
            let (fake, card) = FakeE1000e::fake();
            (fake, Fakes::E1000e(card))
        }
        _ => {
            let ring = if name.contains("packed") { PACKED } else { 0 };
            let offered = PLAIN | ACCESS_PLATFORM | MRG_RXBUF | INDIRECT | EVENT_IDX;
            let (fake, card) = FakeVirtioNet::fake(offered | CTRL_VQ | CTRL_RX | ring);
            (fake, Fakes::Virtio(card))
        }
    };
    let memory = Arc::clone(fake.memory());
    let nic = open::start(fake, config)?;
    Ok((nic, Cable { memory, card }))
}

impl Cable {
    fn sent(&self) -> Option<Vec<u8>> {
        fn first<T>(list: &mut Vec<T>) -> Option<T> {
            (!list.is_empty()).then(|| list.remove(0))
        }
        match &self.card {
            Fakes::E1000(card) => first(&mut lock(card).sent),
            Fakes::E1000e(card) => first(&mut lock(card).sent).map(|(_, frame)| frame),
            Fakes::Virtio(card) => {
                first(&mut lock(card).sent).map(|(_, with_header)| with_header[12..].to_vec())
            }
        }
    }
}

impl Wire for Cable {
    fn send(&self, frame: &[u8]) {
        match &self.card {
            Fakes::E1000(card) => {
                let mut card = lock(card);
                card.inbox.push_back(frame.to_vec());
                card.step_rx(&self.memory);
            }
            Fakes::E1000e(card) => {
                let mut card = lock(card);
                card.inbox[0].push_back(frame.to_vec());
                card.step_rx(&self.memory);
            }
            Fakes::Virtio(card) => {
                lock(card).receive(&self.memory, 0, [0; 12], frame);
            }
        }
    }

    fn try_send(&self, frame: &[u8]) {
        self.send(frame);
    }

    fn recv(&self, bound: Duration) -> Option<Vec<u8>> {
        let begin = Instant::now();
        while begin.elapsed() < bound {
            if let Some(frame) = self.sent() {
                return Some(frame);
            }
            std::thread::yield_now();
        }
        None
    }

    fn longest(&self) -> usize {
        usize::MAX
    }
}
