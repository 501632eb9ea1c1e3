//! Captures that we write: pcap of one interface, pcapng of several.

use std::io::{self, Write};
use std::time::Duration;

use byteorder_slice::LittleEndian;
use pcap_file::pcap::{PcapHeader, RawPcapPacket};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

use super::LONGEST;
use crate::nic::Mac;

/// Writes a pcap file of Ethernet frames, with times in microseconds.
pub struct CaptureWriter<W: Write>(W);

impl<W: Write> CaptureWriter<W> {
    /// Begins a capture.
    ///
    /// # Errors
    /// If `to` cannot be written.
    pub fn new(mut to: W) -> io::Result<Self> {
        let header = PcapHeader {
            snaplen: LONGEST as u32,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::MicroSecond,
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        header.write_to(&mut to).map_err(write_failed)?;
        Ok(Self(to))
    }

    /// Appends a frame that came at `time`, since 1970.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, time: Duration, frame: &[u8]) -> io::Result<()> {
        let packet = RawPcapPacket {
            // 32 bits, as the format has it: until 2106.
            ts_sec: time.as_secs() as u32,
            ts_frac: time.subsec_micros(),
            incl_len: frame.len() as u32,
            orig_len: frame.len() as u32,
            data: frame.into(),
        };
        let written = packet.write_to::<_, LittleEndian>(&mut self.0);
        written.map(drop).map_err(write_failed)
    }

    /// Passes on what `to` holds back.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Writes a pcapng file of the frames of several interfaces, with times in nanoseconds.
pub struct TapWriter<W: Write>(PcapNgWriter<W>);

impl<W: Write> TapWriter<W> {
    /// Begins a capture of these interfaces: name and Ethernet address.
    ///
    /// # Errors
    /// If `to` cannot be written.
    pub fn new<'n>(
        to: W,
        interfaces: impl IntoIterator<Item = (&'n str, Mac)>,
    ) -> io::Result<Self> {
        let mut writer = PcapNgWriter::new(to).map_err(write_failed)?;
        for (name, mac) in interfaces {
            let mut block = InterfaceDescriptionBlock::new(DataLink::ETHERNET, LONGEST as u32);
            block.options = vec![
                InterfaceDescriptionOption::IfName(name.into()),
                InterfaceDescriptionOption::IfMacAddr(mac.0[..].into()),
                InterfaceDescriptionOption::IfTsResol(9),
            ];
            writer.write_pcapng_block(block).map_err(write_failed)?;
        }
        Ok(Self(writer))
    }

    /// Appends a frame that came in by interface `interface`, counted from 0, at `time` since 1970.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, interface: u32, time: Duration, frame: &[u8]) -> io::Result<()> {
        let block = EnhancedPacketBlock {
            interface_id: interface,
            timestamp: time,
            original_len: frame.len() as u32,
            data: frame.into(),
            options: Vec::new(),
        };
        let written = self.0.write_pcapng_block(block);
        written.map(drop).map_err(write_failed)
    }

    /// Passes on what `to` holds back.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}

fn write_failed(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
