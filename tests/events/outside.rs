//! Who has a hand on the card from outside: QEMU's monitor, on this host or around the VM.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pinwire::backend::QtestControl;

/// What can be done to a card that a driver has.
#[derive(Clone)]
pub enum Outside {
    /// QEMU is ours.
    Qtest(QtestControl),
    /// QEMU is around us: who started it reads in this folder what is wanted of the card `id`, and says
    /// that it is done (`tests/vm/faults.rs`).
    Vm { folder: PathBuf, id: String },
}

impl Outside {
    /// Plugs the cable in, or pulls it out.
    pub fn set_link(&self, up: bool) {
        match self {
            Self::Qtest(control) => control.set_link(up).unwrap(),
            Self::Vm { id, .. } => {
                self.ask(&format!(r#"set_link {{"name": "{id}", "up": {up}}}"#));
            }
        }
    }

    /// Pulls the card out. In the VM its kernel takes five seconds to let it go.
    pub fn unplug(&self) {
        match self {
            Self::Qtest(control) => control.unplug().unwrap(),
            Self::Vm { id, .. } => self.ask(&format!(r#"device_del {{"id": "{id}"}}"#)),
        }
    }

    fn ask(&self, wanted: &str) {
        let Self::Vm { folder, .. } = self else {
            return;
        };
        let [draft, asked, done] = ["draft", "asked", "done"].map(|name| folder.join(name));
        std::fs::write(&draft, wanted).unwrap();
        std::fs::rename(&draft, &asked).unwrap();
        let begin = Instant::now();
        while !done.exists() {
            assert!(begin.elapsed() < Duration::from_secs(20), "{wanted}");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::remove_file(&done).unwrap();
    }
}
