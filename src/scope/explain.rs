//! `--explain`: what the driver and the card do, step by step, for a learner.
//!
//! A [`Watch`] notes every register access, and the rings are looked at between two steps; what
//! changed is told. The words are the datasheet's: a register's name, its fields, its section.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};

use crate::Error;
use crate::backend::Watch;
use crate::inspect::{Owner, PackedIndices, RingIndices, RingView, SlotView, SplitIndices};
use crate::mmio::Access::ReadClear;
use crate::mmio::{Place, RegInfo};
use crate::net::{Next, Progress, Source};
use crate::nic::{Frame, Nic};
use crate::scope::text::paint;

/// Frames that are explained; those after them go unexplained.
pub const FRAMES: usize = 3;
/// Longest time that a frame may take.
const BOUND: Duration = Duration::from_secs(2);
/// Descriptors shown of one step.
const SLOTS: usize = 6;
/// Fields shown of one register.
const FIELDS: usize = 10;
/// Lines shown of accesses to one register in a row.
const REPEATS: usize = 4;

/// Notes register accesses.
#[derive(Default)]
struct Recorder {
    muted: AtomicBool,
    accesses: Mutex<Vec<Access>>,
}

/// One register access.
#[derive(Debug, Clone, Copy)]
struct Access {
    write: bool,
    place: Place,
    value: u64,
}

/// The register that an access went to, and which one of an array.
type Register = Option<(&'static RegInfo, usize)>;

impl Recorder {
    fn note(&self, access: Access) {
        if !self.muted.load(Ordering::Relaxed) {
            let mut accesses = self.accesses.lock().unwrap_or_else(PoisonError::into_inner);
            accesses.push(access);
        }
    }

    fn take(&self) -> Vec<Access> {
        let mut accesses = self.accesses.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut accesses)
    }
}

impl Watch for Recorder {
    fn read(&self, place: Place, value: u64) -> u64 {
        self.note(Access {
            write: false,
            place,
            value,
        });
        value
    }

    fn write(&self, place: Place, value: u64) -> Option<u64> {
        self.note(Access {
            write: true,
            place,
            value,
        });
        Some(value)
    }
}

/// Colours; none without a terminal.
#[derive(Default)]
struct Palette {
    title: Style,
    write: Style,
    read: Style,
    fields: Style,
    aside: Style,
}

impl Palette {
    fn new(colour: bool) -> Self {
        if !colour {
            return Self::default();
        }
        Self {
            title: Style::new().bold().underline(),
            write: AnsiColor::Yellow.on_default().bold(),
            read: AnsiColor::Cyan.on_default(),
            fields: AnsiColor::Green.on_default(),
            aside: Style::new().dimmed(),
        }
    }
}

/// Tells what happens.
pub struct Explainer {
    recorder: Arc<Recorder>,
    palette: Palette,
    to_stderr: bool,
    stop: &'static AtomicBool,
    /// The rings when they were looked at last.
    rings: Vec<RingView>,
}

impl Explainer {
    /// One that tells on standard output, or on standard error where that is for data; waits for nothing more
    /// once `stop` is set.
    pub fn new(to_stderr: bool, stop: &'static AtomicBool) -> Self {
        let colour = match to_stderr {
            true => paint::stderr_has_colour(),
            false => paint::stdout_has_colour(),
        };
        Self {
            recorder: Arc::default(),
            palette: Palette::new(colour),
            to_stderr,
            stop,
            rings: Vec::new(),
        }
    }

    /// The watch that must see the register accesses.
    pub fn watch(&self) -> Arc<dyn Watch> {
        self.recorder.clone()
    }

    /// Tells how the card was set up, once it is.
    pub fn started(&mut self, nic: &dyn Nic) {
        self.title(&format!("{} ({}) is set up", nic.name(), nic.model()));
        self.step("Register writes and reads, with the fields that are set; § is a section of the card's manual");
        self.registers(nic);
        self.look(nic);
        self.step("What it has come to");
        for ring in &self.rings {
            let Some(slot) = ring.slots.first() else {
                continue;
            };
            self.say(&format!(
                "the {} ring has {} descriptors of 16 bytes at IOVA {}, which is {:#x} in this process",
                ring.name,
                ring.slots.len(),
                slot.iova,
                ring.address
            ));
            let posted = ring.slots.iter().filter(|slot| slot.owner == Owner::Device);
            let posted = posted.count();
            if posted > 0 {
                self.say(&format!(
                    "{posted} of them hold a buffer for the card to fill"
                ));
            }
        }
        let mac = nic.mac();
        let link = nic.link();
        self.say(&format!("its address is {mac}; the link is {link}"));
        self.recorder.take();
    }

    /// Sends the first [`FRAMES`] frames one by one and tells how; then is silent.
    pub fn send(
        mut self,
        nic: &mut dyn Nic,
        source: &mut dyn Source,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.forget();
        for number in 1..=FRAMES {
            let frame = loop {
                match source.next(None)? {
                    Next::Frame(frame) => break frame,
                    Next::NotYet if self.is_to_stop() => return Err(Error::Interrupted),
                    Next::NotYet => source.wait(Duration::from_millis(50))?,
                    Next::Wait | Next::End => {
                        self.print("\n");
                        return Ok(());
                    }
                }
            };
            self.send_one(nic, frame, number, progress)?;
        }
        self.enough();
        self.print("\n");
        Ok(())
    }

    fn send_one(
        &mut self,
        nic: &mut dyn Nic,
        frame: Frame,
        number: usize,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.title(&format!("Frame {number}: {} bytes", frame.len()));
        self.describe(&frame);
        self.look(nic);

        self.step("The driver fills descriptors; the card does not look at them yet");
        let mut frames = vec![frame];
        nic.submit(&mut frames)?;
        self.changes(nic);

        let words = Words::of(&self.rings);
        self.step(words.doorbell);
        nic.doorbell()?;
        self.registers(nic);

        self.step(words.sent);
        let begin = Instant::now();
        while !self.is_done(nic) {
            if self.is_to_stop() {
                return Err(Error::Interrupted);
            }
            if begin.elapsed() > BOUND {
                nic.check()?;
                return Err(Error::Timeout {
                    device: nic.name().to_owned(),
                    what: "the write-back of the descriptors",
                    bound: BOUND,
                    remedy: "is the link up? look at the ring: pinwire show",
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.changes(nic);

        self.step(words.taken_back);
        let mut done = Vec::new();
        nic.completed(&mut done)?;
        self.registers(nic);
        self.look(nic);
        progress.add(done.len(), done.iter().map(Frame::len).sum());
        Ok(())
    }

    /// The segments of a frame, and what the card shall do to it.
    fn describe(&self, frame: &Frame) {
        for segment in frame.segments() {
            let kind = match segment.is_buffer() {
                true => "packet buffer",
                false => "page cache of the file (only the card reads it)",
            };
            let here = segment.address();
            self.say(&format!(
                "{:5} bytes at IOVA {}, {here:#x} in this process: {kind}",
                segment.len(),
                segment.iova(),
            ));
        }
        if !frame.offload().is_none() {
            let mut names = frame.offload().flags.iter_names().map(|(name, _)| name);
            let first = names.next().unwrap_or_default().to_owned();
            let names = names.fold(first, |all, name| all + ", " + name);
            self.say(&format!("the card shall do: {names}"));
        }
    }

    fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_done(&self, nic: &dyn Nic) -> bool {
        self.has_done(nic, "transmit")
    }

    /// Returns whether the card has filled a buffer that the driver has not taken yet.
    pub fn has_arrived(&self, nic: &dyn Nic) -> bool {
        self.has_done(nic, "receive")
    }

    fn has_done(&self, nic: &dyn Nic, ring: &str) -> bool {
        let rings = self.quietly(|| nic.rings());
        let ring = rings.iter().find(|view| view.name == ring);
        ring.is_some_and(|ring| ring.slots.iter().any(|slot| slot.owner == Owner::Done))
    }

    /// Tells how frames come in: the registers written to wait for them, and the descriptors that
    /// the card has filled.
    pub fn came_in(&mut self, nic: &dyn Nic, number: usize) {
        self.title(&format!("Frame {number} comes in"));
        self.step("Before: the driver waits; interrupts are on only while it sleeps");
        self.registers(nic);
        self.step(Words::of(&self.rings).arrived);
        self.changes(nic);
    }

    /// Tells what the driver did once it had taken frames.
    pub fn taken(&mut self, nic: &dyn Nic) {
        self.step(Words::of(&self.rings).refilled);
        self.registers(nic);
        self.changes(nic);
        self.print("\n");
    }

    /// Says that the rest goes unexplained.
    pub fn enough(&mut self) {
        self.title("From here on frames go unexplained");
        self.recorder.muted.store(true, Ordering::Relaxed);
    }

    /// Looks at the rings without telling.
    pub fn look(&mut self, nic: &dyn Nic) {
        self.rings = self.quietly(|| nic.rings());
    }

    /// Nothing came of what was noted.
    pub fn forget(&self) {
        self.recorder.take();
    }

    /// Works without telling: this is no part of the story.
    fn quietly<T>(&self, what: impl FnOnce() -> T) -> T {
        let muted = self.recorder.muted.swap(true, Ordering::Relaxed);
        let value = what();
        self.recorder.muted.store(muted, Ordering::Relaxed);
        value
    }

    /// Tells the register accesses since the last time.
    fn registers(&self, nic: &dyn Nic) {
        let accesses = self.recorder.take();
        let found = |access: &Access| (*access, nic.register_at(access.place));
        let accesses: Vec<_> = accesses.iter().map(found).collect();
        self.print(&accesses_told(&accesses, &self.palette));
    }

    /// Tells which descriptors are not what they were when they were looked at last.
    fn changes(&mut self, nic: &dyn Nic) {
        let before = std::mem::take(&mut self.rings);
        self.look(nic);
        for (before, now) in before.iter().zip(&self.rings) {
            self.print(&changes_told(before, now, &self.palette));
        }
    }

    fn title(&self, text: &str) {
        let style = self.palette.title;
        self.print(&format!("\n{style}{text}{style:#}\n"));
    }

    fn step(&self, text: &str) {
        self.print(&format!("- {text}\n"));
    }

    fn say(&self, text: &str) {
        self.print(&format!("    {text}\n"));
    }

    /// Prints, unless nobody listens any more: then there is nothing to tell.
    fn print(&self, text: &str) {
        let _ = match self.to_stderr {
            true => io::stderr().lock().write_all(text.as_bytes()),
            false => io::stdout().lock().write_all(text.as_bytes()),
        };
    }
}

/// Names of the steps, which differ with the way in which driver and card tell each other their progress.
struct Words {
    doorbell: &'static str,
    sent: &'static str,
    taken_back: &'static str,
    arrived: &'static str,
    refilled: &'static str,
}

impl Words {
    fn of(rings: &[RingView]) -> &'static Self {
        match rings.first().map(|ring| &ring.indices) {
            Some(RingIndices::Split(_)) => &Self {
                doorbell: "The driver moves the available index, and rings the doorbell where the card wants it",
                sent: "The card reads the available ring, descriptors and frame by DMA, sends, and writes the used ring",
                taken_back: "The driver sees the used index in memory, without asking the card, and has the frame back",
                arrived: "The card wrote header and frame by DMA, then an entry of the used ring and its index",
                refilled: "The driver took the frame, makes a fresh buffer available, and moves the available index",
            },
            Some(RingIndices::Packed(_)) => &Self {
                doorbell: "The driver flips the flags of the first descriptor last, and rings the doorbell where the card wants it",
                sent: "The card reads descriptors and frame by DMA, sends, and writes a used descriptor over the first",
                taken_back: "The driver sees AVAIL and USED alike in memory, without asking the card, and has the frame back",
                arrived: "The card wrote header and frame by DMA, then a used descriptor over the available one",
                refilled: "The driver took the frame, and makes a fresh buffer available in the next descriptor",
            },
            Some(RingIndices::Own { .. }) => &Self {
                doorbell: "The doorbell: one register write has the card look at OWN of its next descriptor",
                sent: "The card reads descriptors and frame by DMA, sends, and clears OWN",
                taken_back: "The driver sees OWN cleared in memory, without asking the card, and has the frame back",
                arrived: "The card wrote the frame by DMA, then its descriptor, with OWN cleared",
                refilled: "The driver took the frame, and posts a fresh buffer: OWN hands it to the card, with no register",
            },
            // No card has phase tags.
            Some(RingIndices::Registers { .. } | RingIndices::Phase { .. }) | None => &Self {
                doorbell: "The doorbell: one register write hands them to the card \
                    (the driver asks for a report, RS, in the last one just before)",
                sent: "The card reads descriptors and frame by DMA, sends, and writes DD back",
                taken_back: "The driver sees DD in memory, without asking the card, and has the frame back",
                arrived: "The card wrote the frame by DMA, then its descriptor, with DD",
                refilled: "The driver took the frame, posts a fresh buffer, and moves the tail",
            },
        }
    }
}

/// Accesses as lines; the same thing many times is told once.
fn accesses_told(accesses: &[(Access, Register)], palette: &Palette) -> String {
    let found = |(_, register): &(Access, Register)| register.map(|(info, _)| info);
    let mut text = String::new();
    for stretch in accesses.chunk_by(|a, b| are_alike(found(a), found(b))) {
        let runs: Vec<_> = stretch
            .chunk_by(|a, b| {
                let arrays =
                    [a, b].map(|access| found(access).is_some_and(|info| info.array.0 > 1));
                let same_place = a.0.place == b.0.place || arrays == [true, true];
                same_place && (a.0.write, a.0.value) == (b.0.write, b.0.value)
            })
            .collect();
        let shown = if runs.len() > REPEATS {
            REPEATS - 1
        } else {
            runs.len()
        };
        for run in &runs[..shown] {
            text += &run_told(run, palette);
        }
        let rest: usize = runs[shown..].iter().map(|run| run.len()).sum();
        if rest > 0 {
            let whose = match found(&stretch[0]) {
                Some(info) if info.access == ReadClear => format!("{} registers", info.group),
                Some(info) => info.name.to_owned(),
                None => "it".to_owned(),
            };
            let aside = palette.aside;
            let _ = writeln!(
                text,
                "    {aside}... and {rest} more accesses of {whose}{aside:#}"
            );
        }
    }
    text
}

/// Returns whether two accesses are part of one stretch: of one register, of arrays, or of counters.
fn are_alike(a: Option<&RegInfo>, b: Option<&RegInfo>) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return false;
    };
    a.name == b.name
        || (a.array.0 > 1 && b.array.0 > 1)
        || (a.access == ReadClear && b.access == ReadClear && a.group == b.group)
}

/// The same access of one register, or of arrays.
fn run_told(run: &[(Access, Register)], palette: &Palette) -> String {
    let (access, register) = run[0];
    let Access {
        write,
        place,
        value,
    } = access;
    let (style, verb) = match write {
        true => (palette.write, "write"),
        false => (palette.read, "read "),
    };
    let mut times = match run.len() {
        1 => String::new(),
        times => format!(", {times} times"),
    };
    let digits = 2 + 2 * place.width.bytes();
    let Some((info, index)) = register else {
        let offset = place.offset;
        return format!("    {style}{verb}{style:#} {offset:#07x} = {value:#0digits$x}{times}\n");
    };
    let mut name = info.name.to_owned();
    let mut what = format!("{}, §{}", info.what, info.section);
    if info.array.0 > 1 {
        if run.len() == 1 {
            name += &format!("[{index}]");
        } else {
            name = arrays_told(run);
            times = ", each".to_owned();
            what = format!("{} registers", info.group);
        }
    }
    let (fields, aside) = (palette.fields, palette.aside);
    format!(
        "    {style}{verb}{style:#} {name:8} = {value:#0digits$x}{times}{fields}{}{fields:#}  {aside}{what}{aside:#}\n",
        fields_told(info, value),
    )
}

/// Elements of arrays: `RAH[1..15], RAL[1..15]`.
fn arrays_told(run: &[(Access, Register)]) -> String {
    let mut spans: Vec<(&str, usize, usize)> = Vec::new();
    for (info, index) in run.iter().filter_map(|(_, register)| *register) {
        match spans.iter_mut().find(|(name, ..)| *name == info.name) {
            Some((_, first, last)) => (*first, *last) = ((*first).min(index), (*last).max(index)),
            None => spans.push((info.name, index, index)),
        }
    }
    let spans = spans
        .iter()
        .map(|(name, first, last)| format!("{name}[{first}..{last}]"));
    spans.collect::<Vec<_>>().join(", ")
}

/// The fields that are set: `  en psp ct=15`.
fn fields_told(info: &RegInfo, value: u64) -> String {
    let fields = (info.fields)(value);
    let mut text = String::new();
    for (name, value) in fields.iter().take(FIELDS) {
        match value.as_str() {
            "true" => text += &format!(" {name}"),
            value => text += &format!(" {name}={value}"),
        }
    }
    match text.is_empty() {
        true => text,
        false if fields.len() > FIELDS => format!(" {text} ..."),
        false => format!(" {text}"),
    }
}

/// The changes in a ring: its head and tail, and descriptors as they were and as they are.
fn changes_told(before: &RingView, now: &RingView, palette: &Palette) -> String {
    let changed = |(was, is): &(&SlotView, &SlotView)| was.words != is.words;
    let pairs = before.slots.iter().zip(&now.slots);
    let changed: Vec<_> = pairs
        .enumerate()
        .filter(|(_, pair)| changed(pair))
        .collect();
    let mut text = String::new();
    for (index, (was, is)) in changed.iter().take(SLOTS) {
        let fields = palette.fields;
        let _ = writeln!(
            text,
            "    {} descriptor {index}, at IOVA {}",
            now.name, is.iova
        );
        let _ = writeln!(text, "      was {}", slot_told(was));
        let _ = writeln!(text, "      is  {fields}{}{fields:#}", slot_told(is));
    }
    if changed.len() > SLOTS {
        let more = changed.len() - SLOTS;
        let _ = writeln!(text, "    ... and {more} more descriptors");
    }
    if before.indices != now.indices {
        for told in indices_told(&before.indices, &now.indices) {
            let _ = writeln!(text, "    {} {told}", now.name);
        }
    }
    text
}

/// The changes in the progress of driver and device, a line each.
fn indices_told(before: &RingIndices, now: &RingIndices) -> Vec<String> {
    match (before, now) {
        (
            RingIndices::Registers { head, tail },
            RingIndices::Registers {
                head: head_now,
                tail: tail_now,
            },
        ) => vec![format!(
            "ring: head {head} -> {head_now}, tail {tail} -> {tail_now}"
        )],
        (
            RingIndices::Own { next, oldest },
            RingIndices::Own {
                next: next_now,
                oldest: oldest_now,
            },
        ) => vec![format!(
            "ring: next to post {next} -> {next_now}, oldest not taken back {oldest} -> {oldest_now}"
        )],
        (
            RingIndices::Phase { head, phase },
            RingIndices::Phase {
                head: head_now,
                phase: phase_now,
            },
        ) => vec![format!(
            "queue: head {head} -> {head_now}, phase tag of a new entry {} -> {}",
            u8::from(*phase),
            u8::from(*phase_now)
        )],
        (RingIndices::Split(before), RingIndices::Split(now)) => split_told(before, now),
        (RingIndices::Packed(before), RingIndices::Packed(now)) => packed_told(before, now),
        _ => Vec::new(),
    }
}

fn split_told(before: &SplitIndices, now: &SplitIndices) -> Vec<String> {
    let mut lines = Vec::new();
    if before.avail_idx != now.avail_idx {
        let last = usize::from(now.avail_idx.wrapping_sub(1)) % now.avail.len().max(1);
        lines.push(format!(
            "available ring: idx {} -> {}, entry {last} = chain {}",
            before.avail_idx, now.avail_idx, now.avail[last]
        ));
    }
    if before.used_idx != now.used_idx {
        let last = usize::from(now.used_idx.wrapping_sub(1)) % now.used.len().max(1);
        let (id, written) = now.used[last];
        lines.push(format!(
            "used ring: idx {} -> {}, entry {last} = chain {id}, {written} bytes written",
            before.used_idx, now.used_idx
        ));
    }
    if before.used_event != now.used_event {
        lines.push(format!(
            "available ring: used_event {} -> {}, when the driver wants an interrupt",
            before.used_event, now.used_event
        ));
    }
    if before.avail_event != now.avail_event {
        lines.push(format!(
            "used ring: avail_event {} -> {}, when the card wants a notification",
            before.avail_event, now.avail_event
        ));
    }
    lines
}

fn packed_told(before: &PackedIndices, now: &PackedIndices) -> Vec<String> {
    let mut lines = Vec::new();
    let wrap = u8::from;
    if (before.next_avail, before.avail_wrap) != (now.next_avail, now.avail_wrap) {
        lines.push(format!(
            "ring: next to make available {} -> {}, wrap counter {}",
            before.next_avail,
            now.next_avail,
            wrap(now.avail_wrap)
        ));
    }
    if (before.next_used, before.used_wrap) != (now.next_used, now.used_wrap) {
        lines.push(format!(
            "ring: next to be used {} -> {}, wrap counter {}",
            before.next_used,
            now.next_used,
            wrap(now.used_wrap)
        ));
    }
    for (name, before, now) in [
        ("driver", before.driver_event, now.driver_event),
        ("device", before.device_event, now.device_event),
    ] {
        if before != now {
            lines.push(format!(
                "{name} event: {:#06x} {:#06x} -> {:#06x} {:#06x}",
                before[0], before[1], now[0], now[1]
            ));
        }
    }
    lines
}

fn slot_told(slot: &SlotView) -> String {
    let whose = match slot.owner {
        Owner::Device => "the card's",
        Owner::Done => "done",
        Owner::Driver => "the driver's",
    };
    let text = match slot.words.iter().all(|word| *word == 0) {
        true => "empty",
        false => &slot.text,
    };
    // Two words a line, as long descriptors stand in the datasheets.
    let line = |pair: &[u64]| {
        let words = pair.iter().map(|word| format!("{word:016x}"));
        words.collect::<Vec<_>>().join(" ")
    };
    let mut lines = slot.words.chunks(2).map(line);
    let first = lines.next().unwrap_or_default();
    let rest = lines.map(|line| format!("\n          {line}"));
    let rest: String = rest.collect();
    format!("{first}  {whose}: {text}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::Iova;
    use crate::mmio::Width;
    use crate::nic::e1000::regs::TABLE;

    fn write(offset: usize, value: u64) -> Access {
        Access {
            write: true,
            place: Place {
                bar: 0,
                offset,
                width: Width::Four,
            },
            value,
        }
    }

    fn told(accesses: &[Access]) -> String {
        let found = |access: &Access| (*access, RegInfo::find(TABLE, access.place.offset));
        let accesses: Vec<_> = accesses.iter().map(found).collect();
        accesses_told(&accesses, &Palette::default())
    }

    #[test]
    fn a_register_is_told_with_its_fields_and_section() {
        assert_eq!(
            told(&[write(0x0400, 0x0004_00fa)]),
            "    write TCTL     = 0x000400fa  en psp ct=15 cold=64  transmit control, §13.4.33\n"
        );
        let read = Access {
            write: false,
            ..write(0xe00c, 7)
        };
        assert_eq!(told(&[read]), "    read  0x0e00c = 0x00000007\n");
    }

    #[test]
    fn the_same_thing_many_times_is_told_once() {
        let table: Vec<_> = (0..128).map(|index| write(0x5200 + 4 * index, 0)).collect();
        let text = told(&table);
        assert!(text.contains("MTA[0..127] = 0x00000000, each"), "{text}");
        assert_eq!(text.lines().count(), 1);

        let pairs: Vec<_> = (1..16)
            .flat_map(|index| [write(0x5404 + 8 * index, 0), write(0x5400 + 8 * index, 0)])
            .collect();
        let text = told(&pairs);
        assert!(
            text.contains("RAH[1..15], RAL[1..15] = 0x00000000, each"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);

        let wiggles: Vec<_> = (0..100).map(|bit| write(0x0010, bit & 1)).collect();
        let text = told(&wiggles);
        assert_eq!(text.lines().count(), REPEATS);
        assert!(text.contains("... and 97 more accesses of EECD"), "{text}");
    }

    #[test]
    fn only_descriptors_that_changed_are_told() {
        let slot = |index: u64, words, owner| SlotView {
            iova: Iova(0x1000 + 16 * index),
            words,
            text: "legacy eop".to_owned(),
            owner,
            buffer: None,
        };
        let ring = |tail, slots| RingView {
            name: "transmit",
            pair: 0,
            address: 0,
            indices: RingIndices::Registers { head: 0, tail },
            slots,
        };
        let same = slot(0, vec![1, 2], Owner::Driver);
        let was = slot(1, vec![0, 0], Owner::Driver);
        let is = slot(1, vec![0x2000, 0x3c], Owner::Device);
        let text = changes_told(
            &ring(1, vec![same.clone(), was]),
            &ring(2, vec![same, is]),
            &Palette::default(),
        );
        let expected = "    transmit descriptor 1, at IOVA 0x1010\n      \
            was 0000000000000000 0000000000000000  the driver's: empty\n      \
            is  0000000000002000 000000000000003c  the card's: legacy eop\n    \
            transmit ring: head 0 -> 0, tail 1 -> 2\n";
        assert_eq!(text, expected);
    }
}
