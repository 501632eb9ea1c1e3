//! Ctrl-C sets a flag that every loop looks at ([`interrupted`]), so that a command ends by returning: the
//! card is stopped and its memory unmapped by the drops on the way, as they are when it fails or panics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Flag that the first signal sets.
pub static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Returns whether somebody has asked us to end (Ctrl-C, SIGTERM, SIGHUP).
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Sets the flag at the first signal; ends at once at the second, for whoever cannot wait.
pub fn catch() -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let flag = || Arc::clone(&INTERRUPTED);
        signal_hook::flag::register_conditional_shutdown(signal, 130, flag())?;
        signal_hook::flag::register(signal, flag())?;
    }
    Ok(())
}
