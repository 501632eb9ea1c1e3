//! A progress bar over all runs, on a terminal; the rung under way only counts its bytes.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two looks: seldom, since each is a context switch of this process.
const NAP: Duration = Duration::from_millis(250);

/// The bar.
pub struct Bar(Option<Drawn>);

struct Drawn {
    bar: ProgressBar,
    /// Bytes of a run, and of the runs that are over.
    len: u64,
    over: Arc<AtomicU64>,
    /// Bytes of the run under way.
    now: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    drawer: Option<JoinHandle<()>>,
}

impl Bar {
    /// Makes a bar over `runs` runs of `len` bytes, of which `now` counts those of the one under way.
    pub fn new(runs: u64, len: u64, now: &Arc<AtomicU64>) -> Self {
        if !stderr().is_terminal() {
            return Self(None);
        }
        let style = "{msg}\n{wide_bar:.cyan} {percent} %, {elapsed}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("a template that is right");
        let bar = ProgressBar::new(runs * len).with_style(style);
        let (over, done) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let drawer = {
            let (bar, over, now, done) = (bar.clone(), over.clone(), now.clone(), done.clone());
            std::thread::spawn(move || {
                while !done.load(Ordering::Acquire) {
                    let (over, now) = (&over, now.load(Ordering::Relaxed).min(len));
                    bar.set_position(over.load(Ordering::Relaxed) + now);
                    std::thread::park_timeout(NAP);
                }
            })
        };
        Self(Some(Drawn {
            bar,
            len,
            over,
            now: Arc::clone(now),
            done,
            drawer: Some(drawer),
        }))
    }

    /// A run begins.
    pub fn begin(&self, what: &str) {
        if let Some(drawn) = &self.0 {
            drawn.bar.set_message(what.to_owned());
        }
    }

    /// A run is over, or left out.
    pub fn end(&self) {
        if let Some(drawn) = &self.0 {
            drawn.now.store(0, Ordering::Relaxed);
            drawn.over.fetch_add(drawn.len, Ordering::Relaxed);
        }
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        if let Some(drawer) = self.drawer.take() {
            drawer.thread().unpark();
            let _ = drawer.join();
        }
        self.bar.finish_and_clear();
    }
}
