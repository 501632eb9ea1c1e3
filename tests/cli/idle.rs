//! To wait for frames costs next to nothing, unless it is asked to be by polling.

use std::process::Child;
use std::thread;
use std::time::Duration;

use crate::common::require_qemu;
use crate::spawn;

/// Processor time that the process has used: user and system, in clock ticks (proc(5), 14 and 15).
fn ticks(child: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11..13]
        .iter()
        .map(|field| field.parse::<f64>().unwrap())
        .sum()
}

/// The share of a processor that it uses, once it is up.
fn share<const N: usize>(args: [&str; N]) -> f64 {
    let seconds = 2.0;
    let mut child = spawn(args);
    // Linux counts 100 ticks a second.
    let used = {
        thread::sleep(Duration::from_secs(2));
        let before = ticks(&child);
        thread::sleep(Duration::from_secs_f64(seconds));
        (ticks(&child) - before) / 100.0
    };
    assert!(child.try_wait().unwrap().is_none(), "{args:?} has ended");
    let pid = child.id().to_string();
    std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    used / seconds
}

#[test]
fn who_waits_sleeps() {
    if !require_qemu() {
        return;
    }
    for how in ["adaptive", "interrupt"] {
        let commands = [
            share(["recv", "qtest:e1000", "--wait", how]),
            share([
                "echo",
                "qtest:e1000",
                "--address",
                "10.0.0.1",
                "--wait",
                how,
            ]),
            share(["forward", "qtest:e1000", "qtest:e1000", "--wait", how]),
        ];
        for share in commands {
            assert!(share < 0.05, "{how}: {:.1} % of a processor", 100.0 * share);
        }
    }
}

/// So that the test above can fail.
#[test]
fn who_polls_does_not() {
    if !require_qemu() {
        return;
    }
    let share = share(["recv", "qtest:e1000", "--wait", "poll"]);
    assert!(share > 0.2, "{:.1} % of a processor", 100.0 * share);
}
