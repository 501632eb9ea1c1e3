//! Capture files: pcap and pcapng in and out, one packet at a time.
//!
//! A capture is never read whole, and nothing in it is trusted: a record that says what cannot be is
//! an [`Error::BadCapture`] that names the packet.

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use byteorder_slice::{BigEndian, LittleEndian};
use pcap_file::pcap::{PcapHeader, PcapReader, RawPcapPacket};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::{
    ENHANCED_PACKET_BLOCK, INTERFACE_DESCRIPTION_BLOCK, PACKET_BLOCK, SECTION_HEADER_BLOCK,
    SIMPLE_PACKET_BLOCK,
};
use pcap_file::pcapng::{Block, PcapNgReader, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

use crate::error::{Error, Result};
use crate::nic::Mac;

/// What libpcap takes as the longest packet (its `MAXIMUM_SNAPLEN`), in bytes.
const LONGEST: usize = 262_144;

/// A packet of a capture.
#[derive(Debug, Clone, Copy)]
pub struct Captured<'a> {
    /// Its number in the capture, from 1.
    pub number: u64,
    /// When it was captured, since 1970; none where the capture does not say.
    pub time: Option<Duration>,
    /// Its bytes, from the Ethernet header on, without the frame check sequence.
    pub data: &'a [u8],
    /// How long it was on the wire: more than `data` where the capture cut it short.
    pub wire_len: usize,
}

/// Reads a pcap or pcapng file of Ethernet frames.
pub struct CaptureReader {
    path: PathBuf,
    format: Format,
    /// Packets read.
    count: u64,
}

/// The file, with the four bytes that told its format put back.
type Input = io::Chain<Cursor<[u8; 4]>, File>;

enum Format {
    Pcap(PcapReader<Input>),
    PcapNg(PcapNg),
}

impl CaptureReader {
    /// Opens the capture at `path`.
    ///
    /// # Errors
    /// Where it cannot be read, is no capture ([`Error::BadCapture`]), or is not one of Ethernet.
    pub fn open(path: &Path) -> Result<Self> {
        let unreadable = |source| {
            Error::io(
                format!("cannot read the capture {}", path.display()),
                source,
            )
        };
        let bad = |why: &str| Error::BadCapture {
            path: path.to_owned(),
            why: why.to_owned(),
        };
        let mut file = File::open(path).map_err(unreadable)?;
        let mut magic = [0; 4];
        file.read_exact(&mut magic)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    bad("it has fewer bytes than the header of a capture")
                }
                _ => unreadable(error),
            })?;
        let input = Cursor::new(magic).chain(file);
        let head = |error| match error {
            PcapError::IoError(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                unreadable(error)
            }
            error => bad(&format!("its header: {}", reason(&error))),
        };
        let format = match magic {
            [0x0a, 0x0d, 0x0d, 0x0a] => Format::PcapNg(PcapNg {
                reader: PcapNgReader::new(input).map_err(head)?,
                interfaces: Vec::new(),
            }),
            [0xa1, 0xb2, 0xc3, 0xd4] | [0xd4, 0xc3, 0xb2, 0xa1] // microseconds
            | [0xa1, 0xb2, 0x3c, 0x4d] | [0x4d, 0x3c, 0xb2, 0xa1] // nanoseconds
            => {
                let reader = PcapReader::new(input).map_err(head)?;
                must_be_ethernet(reader.header().datalink).map_err(|why| bad(&why))?;
                Format::Pcap(reader)
            }
            _ => return Err(bad("it begins as neither a pcap nor a pcapng file does")),
        };
        Ok(Self {
            path: path.to_owned(),
            format,
            count: 0,
        })
    }

    /// Where the capture is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the next packet to `take`; `None` after the last.
    ///
    /// # Errors
    /// [`Error::BadCapture`], or where the file cannot be read.
    pub fn next<T>(&mut self, take: impl FnOnce(Captured<'_>) -> T) -> Result<Option<T>> {
        let number = self.count + 1;
        let taken = match &mut self.format {
            Format::Pcap(reader) => next_of_pcap(reader, number, take),
            Format::PcapNg(file) => file.next(number, take),
        };
        match taken {
            Ok(taken) => {
                self.count += u64::from(taken.is_some());
                Ok(taken)
            }
            Err(Bad::Io(source)) => Err(Error::io(
                format!("reading packet {number} of {}", self.path.display()),
                source,
            )),
            Err(Bad::Record(why)) => Err(Error::BadCapture {
                path: self.path.clone(),
                why: format!("packet {number}: {why}"),
            }),
        }
    }
}

/// Why a packet cannot be read.
enum Bad {
    Io(io::Error),
    Record(String),
}

impl From<PcapError> for Bad {
    fn from(error: PcapError) -> Self {
        match error {
            PcapError::IoError(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Self::Io(error)
            }
            error => Self::Record(reason(&error)),
        }
    }
}

impl From<String> for Bad {
    fn from(why: String) -> Self {
        Self::Record(why)
    }
}

/// An error of the parser, in our words where it only says "error".
fn reason(error: &PcapError) -> String {
    match error {
        PcapError::IoError(_) | PcapError::IncompleteBuffer => {
            "the file ends in the middle of it: the capture is truncated".to_owned()
        }
        PcapError::InvalidField(what) => format!("malformed: {what}"),
        error => format!("malformed: {error}"),
    }
}

fn must_be_ethernet(link: DataLink) -> Result<(), String> {
    match link {
        DataLink::ETHERNET => Ok(()),
        other => Err(format!(
            "its link type is {other:?}, not ETHERNET: capture on one Ethernet interface (not on \"any\")"
        )),
    }
}

fn must_be_plausible(len: usize, wire_len: usize) -> Result<(), String> {
    if len > LONGEST {
        return Err(format!(
            "malformed: it claims {len} bytes, and no packet is longer than {LONGEST}"
        ));
    }
    if len > wire_len {
        return Err(format!(
            "malformed: it claims {len} bytes of a packet of {wire_len}"
        ));
    }
    Ok(())
}

fn next_of_pcap<T>(
    reader: &mut PcapReader<Input>,
    number: u64,
    take: impl FnOnce(Captured<'_>) -> T,
) -> Result<Option<T>, Bad> {
    let unit = match reader.header().ts_resolution {
        TsResolution::MicroSecond => 1000,
        TsResolution::NanoSecond => 1,
    };
    let Some(packet) = reader.next_raw_packet() else {
        return Ok(None);
    };
    let packet = packet?;
    let wire_len = packet.orig_len as usize;
    must_be_plausible(packet.data.len(), wire_len)?;
    let fraction = Duration::from_nanos(u64::from(packet.ts_frac) * unit);
    Ok(Some(take(Captured {
        number,
        time: Some(Duration::from_secs(packet.ts_sec.into()) + fraction),
        data: &packet.data,
        wire_len,
    })))
}

/// A pcapng file, and what its interfaces are.
struct PcapNg {
    reader: PcapNgReader<Input>,
    interfaces: Vec<Interface>,
}

/// An interface of a section of a pcapng file.
struct Interface {
    link: DataLink,
    /// Longest packet kept; 0 for no limit.
    snaplen: usize,
    ticks_per_second: u128,
}

impl Interface {
    fn new(block: &InterfaceDescriptionBlock<'_>) -> Result<Self, String> {
        let resolution = block.options.iter().find_map(|option| match option {
            InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
            _ => None,
        });
        // The high bit chooses between powers of 2 and of 10; without the option it is microseconds.
        let resolution = resolution.unwrap_or(6);
        let exponent = u32::from(resolution & 0x7f);
        let base = if resolution & 0x80 != 0 { 2 } else { 10u128 };
        Ok(Self {
            link: block.linktype,
            snaplen: block.snaplen as usize,
            ticks_per_second: base.checked_pow(exponent).ok_or_else(|| {
                format!("malformed: an interface before it counts time in {base}^-{exponent} s")
            })?,
        })
    }

    fn time(&self, ticks: u64) -> Duration {
        let nanos = u128::from(ticks) * 1_000_000_000 / self.ticks_per_second;
        let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        Duration::new(u64::try_from(seconds).unwrap_or(u64::MAX), nanos as u32)
    }
}

impl PcapNg {
    fn next<T>(
        &mut self,
        number: u64,
        take: impl FnOnce(Captured<'_>) -> T,
    ) -> Result<Option<T>, Bad> {
        loop {
            let endianness = self.reader.section().endianness;
            let Some(block) = self.reader.next_raw_block() else {
                return Ok(None);
            };
            let block = block?;
            match block.type_ {
                SECTION_HEADER_BLOCK => self.interfaces.clear(),
                INTERFACE_DESCRIPTION_BLOCK => {
                    let described = self.reader.interfaces().last().map(Interface::new);
                    self.interfaces.extend(described.transpose()?);
                }
                // Only blocks that hold packets are parsed.
                ENHANCED_PACKET_BLOCK | SIMPLE_PACKET_BLOCK => {
                    let block = match endianness {
                        Endianness::Big => block.try_into_block::<BigEndian>()?,
                        Endianness::Little => block.try_into_block::<LittleEndian>()?,
                    };
                    let captured = captured(&block, number, &self.interfaces)?;
                    return Ok(Some(take(captured)));
                }
                PACKET_BLOCK => {
                    let why = "it is in an obsolete form; convert the capture: editcap -F pcap";
                    return Err(why.to_owned().into());
                }
                _ => {}
            }
        }
    }
}

/// The packet in a block that holds one.
fn captured<'a>(
    block: &'a Block<'_>,
    number: u64,
    interfaces: &[Interface],
) -> Result<Captured<'a>, String> {
    let from = |id: u32| {
        let interface = interfaces.get(id as usize);
        let missing = || format!("malformed: it is from interface {id}, which the file lacks");
        let interface = interface.ok_or_else(missing)?;
        must_be_ethernet(interface.link).map(|()| interface)
    };
    let (time, data, wire_len) = match block {
        Block::EnhancedPacket(packet) => {
            let interface = from(packet.interface_id)?;
            // The parser takes all ticks for nanoseconds.
            let ticks = packet.timestamp.as_nanos() as u64;
            let time = Some(interface.time(ticks));
            (time, &*packet.data, packet.original_len as usize)
        }
        Block::SimplePacket(packet) => {
            let wire_len = packet.original_len as usize;
            let kept = match from(0)?.snaplen {
                0 => wire_len,
                snaplen => wire_len.min(snaplen),
            };
            // What the parser gives has its padding yet.
            let data = packet
                .data
                .get(..kept)
                .ok_or("malformed: it is shorter than it says")?;
            (None, data, wire_len)
        }
        _ => return Err("malformed: a block that holds no packet".to_owned()),
    };
    must_be_plausible(data.len(), wire_len)?;
    Ok(Captured {
        number,
        time,
        data,
        wire_len,
    })
}

/// Writes a pcap file of Ethernet frames, with times in microseconds.
pub struct CaptureWriter<W: Write>(W);

impl<W: Write> CaptureWriter<W> {
    /// Begins a capture.
    ///
    /// # Errors
    /// Where `to` cannot be written.
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
    /// Where it cannot be written.
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
    /// Where it cannot be written.
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
    /// Where `to` cannot be written.
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
    /// Where it cannot be written.
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
    /// Where it cannot be written.
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

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::blocks::simple_packet::SimplePacketBlock;
    use proptest::prelude::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// Time, bytes, length on the wire.
    type Read = (Option<Duration>, Vec<u8>, usize);

    /// All packets, then the error that ended it.
    fn read(bytes: &[u8]) -> (Vec<Read>, Option<Error>) {
        let file = file(bytes);
        let mut packets = Vec::new();
        let mut reader = match CaptureReader::open(file.path()) {
            Ok(reader) => reader,
            Err(error) => return (packets, Some(error)),
        };
        loop {
            let one = reader.next(|packet| {
                assert_eq!(packet.number, packets.len() as u64 + 1);
                packets.push((packet.time, packet.data.to_vec(), packet.wire_len));
            });
            match one {
                Ok(Some(())) => {}
                Ok(None) => return (packets, None),
                Err(error) => return (packets, Some(error)),
            }
        }
    }

    fn pcap() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = CaptureWriter::new(&mut bytes).unwrap();
        writer.write(Duration::from_millis(1500), &[1; 60]).unwrap();
        writer.write(Duration::from_millis(1750), &[2; 61]).unwrap();
        bytes
    }

    fn pcapng(resolution: Option<u8>, link: DataLink) -> Vec<u8> {
        let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
        let mut interface = InterfaceDescriptionBlock::new(link, 0);
        let resolution = resolution.map(InterfaceDescriptionOption::IfTsResol);
        interface.options.extend(resolution);
        writer.write_pcapng_block(interface).unwrap();
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(2500), // ticks
            original_len: 70,
            data: vec![3; 63].into(),
            options: Vec::new(),
        };
        writer.write_pcapng_block(packet).unwrap();
        let packet = SimplePacketBlock {
            original_len: 61,
            data: vec![4; 61].into(),
        };
        writer.write_pcapng_block(packet).unwrap();
        writer.into_inner()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (packets, error) = read(&pcap());
        assert!(error.is_none());
        let millis = |millis| Some(Duration::from_millis(millis));
        let expected = [
            (millis(1500), vec![1; 60], 60),
            (millis(1750), vec![2; 61], 61),
        ];
        assert_eq!(packets, expected);
    }

    #[test]
    fn pcapng_times_are_in_the_interface_s_unit() {
        let of = |resolution| {
            read(&pcapng(resolution, DataLink::ETHERNET)).0[0]
                .0
                .unwrap()
        };
        assert_eq!(of(None), Duration::from_micros(2500));
        assert_eq!(of(Some(9)), Duration::from_nanos(2500));
        assert_eq!(of(Some(3)), Duration::from_millis(2500));
        assert_eq!(of(Some(0x80 | 1)), Duration::from_secs(1250));
    }

    #[test]
    fn pcapng_packets_lose_their_padding_and_keep_their_length_on_the_wire() {
        let (packets, error) = read(&pcapng(None, DataLink::ETHERNET));
        assert!(error.is_none());
        assert_eq!((&*packets[0].1, packets[0].2), (&[3; 63][..], 70));
        assert_eq!(packets[1], (None, vec![4; 61], 61));
    }

    #[test]
    fn a_bad_capture_names_the_packet() {
        let whole = pcap();
        for cut in [whole.len() - 1, whole.len() - 60, whole.len() - 76] {
            let (packets, error) = read(&whole[..cut]);
            let error = error.unwrap().to_string();
            assert_eq!(packets.len(), 1);
            assert!(
                error.contains("packet 2") && error.contains("truncated"),
                "{error}"
            );
        }
        let (_, error) = read(&whole[..20]);
        assert!(error.unwrap().to_string().contains("truncated"));

        let mut liar = whole.clone();
        liar[24 + 8..24 + 12].copy_from_slice(&0x1000_0000u32.to_le_bytes());
        let (_, error) = read(&liar);
        assert!(error.unwrap().to_string().contains("packet 1"));

        let mut liar = whole;
        liar[24 + 12..24 + 16].copy_from_slice(&59u32.to_le_bytes());
        let (_, error) = read(&liar);
        let error = error.unwrap().to_string();
        assert!(error.contains("packet 1: malformed"), "{error}");
    }

    #[test]
    fn what_is_no_ethernet_capture_is_refused() {
        for nothing in [&b""[..], b"abc", b"GET / HTTP/1.1\r\n\r\n"] {
            let (_, error) = read(nothing);
            assert!(matches!(error, Some(Error::BadCapture { .. })));
        }
        let mut raw_ip = pcap();
        raw_ip[20] = 101;
        for bytes in [raw_ip, pcapng(None, DataLink::RAW)] {
            let error = read(&bytes).1.unwrap().to_string();
            assert!(error.contains("RAW, not ETHERNET"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_damage_ends_in_packets_or_an_error(
            ng: bool,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut: prop::sample::Index,
        ) {
            let mut bytes = if ng { pcapng(Some(9), DataLink::ETHERNET) } else { pcap() };
            for (at, value) in damage {
                *at.get_mut(&mut bytes) = value;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            read(&bytes);
        }
    }
}
