//! Captures built by hand, in either byte order, right or wrong.

/// Interface description.
pub const IDB: u32 = 1;
/// Packet, in its obsolete form.
pub const PB: u32 = 2;
/// Simple packet.
pub const SPB: u32 = 3;
/// Enhanced packet.
pub const EPB: u32 = 6;

/// A frame of `len` bytes.
pub fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at + len) as u8).collect()
}

/// A pcap file, little endian: seconds, bytes kept, length on the wire.
pub fn pcap(records: &[(u32, Vec<u8>, usize)], link: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut words = |words: &[u32]| {
        words
            .iter()
            .for_each(|word| bytes.extend(word.to_le_bytes()))
    };
    words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, link]);
    for (seconds, data, wire) in records {
        for word in [*seconds, 0, data.len() as u32, *wire as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(data);
    }
    bytes
}

/// A pcap file of three packets.
pub fn pcap_in(
    big: bool,
    magic: u32,
    header: usize,
    (major, minor): (u16, u16),
    snaplen: u32,
    link: u32,
) -> Vec<u8> {
    let ng = Ng {
        big,
        ended: true,
        bytes: Vec::new(),
    };
    let mut bytes = ng.u32(magic).to_vec();
    bytes.extend(ng.u16(major));
    bytes.extend(ng.u16(minor));
    for word in [0, 0, snaplen, link] {
        bytes.extend(ng.u32(word));
    }
    for (number, (kept, wire)) in [(60, 60), (61, 61), (70, 1500)].into_iter().enumerate() {
        // Before version 2.3 the other way round.
        let lens = match (major, minor) {
            (2, 0..=2) | (543, 0) => [wire, kept],
            _ => [kept, wire],
        };
        for word in [1_700_000_000 + number as u32, 123_456, lens[0], lens[1]] {
            bytes.extend(ng.u32(word));
        }
        bytes.resize(bytes.len() + header - 16, 0);
        bytes.extend(frame(kept as usize));
    }
    bytes
}

/// A pcapng file in the making.
pub struct Ng {
    big: bool,
    /// Does an option say that it was the last?
    pub ended: bool,
    /// So far.
    pub bytes: Vec<u8>,
}

impl Ng {
    /// A section of version 1.`minor`, said to be of `length` bytes.
    pub fn new(big: bool, minor: u16, length: u64) -> Self {
        let mut this = Self {
            big,
            ended: true,
            bytes: Vec::new(),
        };
        let mut body = this.u32(0x1a2b_3c4d).to_vec();
        body.extend(this.u16(1));
        body.extend(this.u16(minor));
        body.extend(this.i64(length as i64));
        this.block(0x0a0d_0d0a, &body);
        this
    }

    pub fn u16(&self, word: u16) -> [u8; 2] {
        if self.big {
            word.to_be_bytes()
        } else {
            word.to_le_bytes()
        }
    }

    pub fn u32(&self, word: u32) -> [u8; 4] {
        if self.big {
            word.to_be_bytes()
        } else {
            word.to_le_bytes()
        }
    }

    pub fn i64(&self, word: i64) -> [u8; 8] {
        if self.big {
            word.to_be_bytes()
        } else {
            word.to_le_bytes()
        }
    }

    /// Appends a block.
    pub fn block(&mut self, kind: u32, body: &[u8]) {
        let total = self.u32(12 + body.len().next_multiple_of(4) as u32);
        self.bytes.extend(self.u32(kind));
        self.bytes.extend(total);
        self.bytes.extend(body);
        let end = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(end, 0);
        self.bytes.extend(total);
    }

    fn options(&self, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (code, value) in options {
            bytes.extend(self.u16(*code));
            bytes.extend(self.u16(value.len() as u16));
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        if self.ended && !options.is_empty() {
            bytes.extend([0; 4]);
        }
        bytes
    }

    /// Describes an interface.
    pub fn interface(&mut self, link: u16, snaplen: u32, options: &[(u16, &[u8])]) {
        let mut body = self.u16(link).to_vec();
        body.extend([0; 2]);
        body.extend(self.u32(snaplen));
        body.extend(self.options(options));
        self.block(IDB, &body);
    }

    /// Appends a packet in a block of `kind`.
    pub fn packet(
        &mut self,
        kind: u32,
        id: u32,
        ticks: u64,
        data: &[u8],
        wire: u32,
        options: &[(u16, &[u8])],
    ) {
        let mut body = match kind {
            SPB => Vec::new(),
            PB => [self.u16(id as u16), [0; 2]].concat(),
            _ => self.u32(id).to_vec(),
        };
        if kind != SPB {
            for word in [(ticks >> 32) as u32, ticks as u32, data.len() as u32] {
                body.extend(self.u32(word));
            }
        }
        body.extend(self.u32(wire));
        body.extend(data);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend(self.options(options));
        self.block(kind, &body);
    }

    /// An interface, and a packet in each form.
    pub fn all_packets(mut self) -> Vec<u8> {
        self.interface(1, 0, &[(2, b"eth0"), (3, b"a card")]);
        self.packet(
            EPB,
            0,
            1_700_000_000_000_000,
            &frame(60),
            60,
            &[(1, b"first")],
        );
        self.packet(PB, 0, 1_700_000_000_000_001, &frame(61), 61, &[]);
        self.block(5, &[0; 12]);
        self.packet(SPB, 0, 0, &frame(62), 62, &[]);
        self.packet(EPB, 0, 1_700_000_000_000_002, &frame(63), 1500, &[]);
        self.bytes
    }
}
