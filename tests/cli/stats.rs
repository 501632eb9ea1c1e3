//! `pinwire stats`: what the card counted, tick by tick.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::{Wire, frame, on_every_card, pinwire};

#[test]
fn each_tick_is_an_object_and_counts_on() {
    on_every_card(|card| {
        let wire = Wire::new();
        let device = wire.device(card);
        let mut stats = Command::new(env!("CARGO_BIN_EXE_pinwire"))
            .args(["stats", &device, "--promiscuous", "--json"])
            .args(["--watch", "0.5", "-c", "6"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(stats.stdout.take().unwrap()).lines();
        // Between two ticks, and not while one is taken: a counter has two halves, and the manual has no word
        // for what comes while one of them was read. The first ticks pass before the card receives.
        let mut text = String::new();
        for (number, line) in lines.enumerate() {
            text += &line.unwrap();
            text.push('\n');
            for _ in 0..if number == 2 || number == 3 { 20 } else { 0 } {
                wire.send(&frame(1, 100));
                thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        assert!(stats.wait().unwrap().success());
        let ticks: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(ticks.len(), 6, "{text}");
        for pair in ticks.windows(2) {
            let of = |tick: &Value, what: &str| tick[what].as_f64().unwrap();
            let took = of(&pair[1], "time") - of(&pair[0], "time");
            let came = of(&pair[1], "rx_frames") - of(&pair[0], "rx_frames");
            let rate = of(&pair[1], "rx_frames_per_second");
            assert!((rate * took - came).abs() <= 0.1 * came + 1.0, "{text}");
        }
        let last = &ticks[5];
        let (counter, missed) = match card.starts_with("virtio") {
            true => ("driver", Value::Null),
            false => ("card", 0.into()),
        };
        assert_eq!(last["counted_by"], counter, "{text}");
        assert_eq!(last["rx_missed"], missed, "{text}");
        // With the frame check sequence.
        assert!(last["rx_frames"].as_u64() > Some(0), "{text}");
        assert_eq!(
            last["rx_bytes"].as_u64(),
            last["rx_frames"].as_u64().map(|frames| frames * 104)
        );
        assert_eq!(
            (&last["link"]["up"], &last["link"]["changes"]),
            (&true.into(), &0.into())
        );
    });
}

#[test]
fn people_get_a_table_and_a_line_a_tick_where_there_is_no_terminal() {
    on_every_card(|card| {
        let run = |args: &[&str]| {
            let mut command = pinwire(["stats", &format!("qtest:{card}")]);
            let output = command.args(args).assert().success().get_output().clone();
            String::from_utf8(output.stdout).unwrap()
        };
        let table = run(&[]);
        // A cable that is a program has no speed.
        let link = match card.starts_with("virtio") {
            true => "link  up\n",
            false => "link  up, 1000 Mbit/s, full duplex\n",
        };
        assert!(table.contains(link), "{table}");
        assert!(
            table.contains("received  0 frames, 0 bytes; 0/s"),
            "{table}"
        );
        let counted = match card.starts_with("virtio") {
            true => [
                "missed for want of a buffer  not known",
                "counted by  the driver: this device has no counters",
            ],
            false => [
                "missed for want of a buffer  0",
                "counted by  the card, in its registers",
            ],
        };
        assert!(counted.iter().all(|row| table.contains(row)), "{table}");
        let lines = run(&["--watch", "0.1", "--count", "3"]);
        assert_eq!(lines.lines().count(), 3, "{lines}");
        assert!(
            lines
                .lines()
                .all(|line| line.starts_with("received 0 (0/s")),
            "{lines}"
        );
        assert!(!lines.contains('\x1b'), "{lines}");
    });
}
