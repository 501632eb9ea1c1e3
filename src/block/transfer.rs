//! Many blocks in order: a range of a disk into a sink, or out of a source, with several requests under way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Completed, Disk, Namespace, Request};
use crate::dma::{DmaBuf, Pool};
use crate::error::{Error, Result};

/// Requests under way: enough to keep a disk busy, and few enough that a stop is heard soon.
const AT_ONCE: usize = 16;
/// Bytes of a request, where the disk takes so many.
const PIECE: usize = 128 << 10;
/// Longest sleep, so that a stop is heard.
const NAP: Duration = Duration::from_millis(100);

/// A range of a namespace's blocks, and how it is worked through.
pub struct Transfer<'a> {
    disk: &'a mut dyn Disk,
    namespace: Namespace,
    pool: Pool,
    piece: usize,
    stop: &'a AtomicBool,
}

impl<'a> Transfer<'a> {
    /// Works on namespace `namespace` of `disk`, by its first queue, until `stop`.
    ///
    /// # Errors
    /// [`Error::BadRequest`] where there is no such namespace; no memory.
    pub fn new(disk: &'a mut dyn Disk, namespace: u32, stop: &'a AtomicBool) -> Result<Self> {
        let found = disk.namespaces().iter().find(|one| one.id == namespace);
        let namespace = found.cloned().ok_or_else(|| {
            let there: Vec<_> = disk
                .namespaces()
                .iter()
                .map(|one| one.id.to_string())
                .collect();
            Error::BadRequest {
                device: disk.name().to_owned(),
                what: format!("use namespace {namespace}"),
                why: match there.is_empty() {
                    true => "it has none that can be used".to_owned(),
                    false => format!("it has {}", there.join(", ")),
                },
            }
        })?;
        let block = namespace.block_size as usize;
        let piece = PIECE.min(disk.limits().max_transfer).max(block) / block * block;
        let pool = Pool::pages(disk.dma(), AT_ONCE, piece)?;
        Ok(Self {
            disk,
            namespace,
            pool,
            piece,
            stop,
        })
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Checks that `bytes` from byte `offset` on are there.
    ///
    /// # Errors
    /// [`Error::BadRequest`].
    pub fn check(&self, offset: u64, bytes: u64) -> Result<()> {
        let all = self.namespace.bytes();
        match offset.checked_add(bytes) {
            Some(past) if past <= all => Ok(()),
            _ => Err(Error::BadRequest {
                device: self.disk.name().to_owned(),
                what: format!("reach {bytes} bytes from byte {offset} on"),
                why: format!("namespace {} has {all} bytes", self.namespace.id),
            }),
        }
    }

    /// Reads `bytes` bytes from byte `offset` on, which need not be edges of blocks, and gives them to `take` piece by
    /// piece, in order.
    ///
    /// # Errors
    /// As [`Transfer::check`]; [`Error::RequestFailed`]; [`Error::Interrupted`]; as `take`.
    pub fn read<E: From<Error>>(
        &mut self,
        offset: u64,
        bytes: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.check(offset, bytes)?;
        let block = u64::from(self.namespace.block_size);
        let (first, past) = (offset / block, (offset + bytes).div_ceil(block));
        let mut at = first * block;
        let end = offset + bytes;
        let fill = |buf: &mut DmaBuf, _: u64, len: usize| {
            buf.set_len(len);
            Ok(())
        };
        self.run(first, past - first, Request::read, fill, |data: Vec<u8>| {
            let begin = offset.saturating_sub(at).min(data.len() as u64) as usize;
            let over = (at + data.len() as u64)
                .saturating_sub(end)
                .min(data.len() as u64) as usize;
            at += data.len() as u64;
            take(&data[begin..data.len() - over])
        })
    }

    /// Writes `bytes` bytes from byte `offset` on; `give` fills a slice with what comes next. Of blocks at either end
    /// that are written in part, the rest stays as it was: they are read first.
    ///
    /// What was written is durable after [`Transfer::flush`].
    ///
    /// # Errors
    /// As [`Transfer::read`].
    pub fn write(
        &mut self,
        offset: u64,
        bytes: u64,
        mut give: impl FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        self.check(offset, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        let block = u64::from(self.namespace.block_size);
        let (first, past) = (offset / block, (offset + bytes).div_ceil(block));
        let mut edges = BTreeMap::new();
        for edge in [first, past - 1] {
            let is_whole = edge * block >= offset && (edge + 1) * block <= offset + bytes;
            if !is_whole && !edges.contains_key(&edge) {
                let mut old = Vec::new();
                self.read(edge * block, block, |data| {
                    old.extend_from_slice(data);
                    Ok::<_, Error>(())
                })?;
                edges.insert(edge, old);
            }
        }
        let mut piece = Vec::new();
        let fill = |buf: &mut DmaBuf, lba: u64, len: usize| {
            piece.clear();
            piece.resize(len, 0);
            let begin = lba * block;
            for (edge, old) in edges.range(lba..lba + len as u64 / block) {
                let at = ((edge - lba) * block) as usize;
                piece[at..at + old.len()].copy_from_slice(old);
            }
            let from = offset.saturating_sub(begin) as usize;
            let to = ((offset + bytes) - begin).min(len as u64) as usize;
            give(&mut piece[from..to])?;
            buf.fill(&piece);
            Ok(())
        };
        self.run(first, past - first, Request::write, fill, |_| Ok(()))
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// As [`Transfer::read`].
    pub fn flush(&mut self) -> Result<()> {
        let mut requests = vec![Request::flush().on(self.namespace.id)];
        let queue = self.disk.queue_mut(0);
        queue.submit(&mut requests)?;
        queue.doorbell()?;
        let mut done = Vec::new();
        while self.disk.queue_mut(0).completed(&mut done, 1)? == 0 {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if !self.disk.queue_mut(0).wait(NAP)? {
                self.disk.check()?;
            }
        }
        done.remove(0).succeeded().map(drop)
    }

    /// Works through `blocks` blocks from `first` on: `fill` makes a piece's buffer ready, `take` gets the pieces'
    /// bytes in order.
    fn run<E: From<Error>>(
        &mut self,
        first: u64,
        blocks: u64,
        request: impl Fn(u64, DmaBuf) -> Request,
        mut fill: impl FnMut(&mut DmaBuf, u64, usize) -> Result<()>,
        mut take: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let block = u64::from(self.namespace.block_size);
        let each = self.piece as u64 / block;
        let (mut next, mut wanted) = (0, 0);
        let mut held: BTreeMap<u64, Completed> = BTreeMap::new();
        let (mut requests, mut done) = (Vec::new(), Vec::new());
        while wanted < blocks {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted.into());
            }
            while next < blocks
                && let Some(mut buf) = self.pool.alloc()
            {
                let lba = first + next;
                let count = each.min(blocks - next);
                fill(&mut buf, lba, (count * block) as usize)?;
                requests.push(request(lba, buf).on(self.namespace.id).tagged(next));
                next += count;
            }
            let queue = self.disk.queue_mut(0);
            queue.submit(&mut requests)?;
            queue.doorbell()?;
            let came = queue.completed(&mut done, AT_ONCE)?;
            held.extend(done.drain(..).map(|done| (done.request.tag, done)));
            while let Some(done) = held.remove(&wanted) {
                let data = done.succeeded()?.into_data();
                let data = data.map_or_else(Vec::new, |data| data.to_vec());
                wanted += data.len() as u64 / block;
                take(data)?;
            }
            if came == 0 && wanted < blocks && !self.disk.queue_mut(0).wait(NAP)? {
                self.disk.check()?;
            }
        }
        Ok(())
    }
}
