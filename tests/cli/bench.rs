//! `pinwire bench` on QEMU's cards: that it measures and reports. How fast it is depends on the
//! machine and is no matter for a test.

use serde_json::Value;

use crate::{Wire, interrupt_at, json, on_every_card_in_turn, pinwire};

const SHORT: [&str; 6] = ["--seconds", "0.05", "--rounds", "2", "--size", "60,1514"];

/// What they call themselves.
fn model(card: &str) -> &'static str {
    match card {
        "e1000" => "Intel 82540EM",
        "e1000e" => "Intel 82574L",
        "virtio-net" => "virtio-net, split queues",
        "virtio-net,packed=on" => "virtio-net, packed queues",
        other => panic!("{other} is none of them"),
    }
}

/// The results of one short run.
fn bench(card: &str, device: &str, args: &[&str]) -> Vec<Value> {
    let mut command = pinwire(["bench", device, "--json"]);
    let output = command.args(SHORT).args(args).assert().success();
    let report = json(&output.get_output().stdout);
    assert_eq!(report["model"], model(card));
    assert_eq!(
        (&report["rounds"], &report["batch"]),
        (&2.into(), &64.into())
    );
    report["results"].as_array().unwrap().clone()
}

/// Rows are there, in order, and each says what it must.
fn check(results: &[Value], expected: &[(u64, &str)]) {
    let found: Vec<_> = results
        .iter()
        .map(|row| (row["size"].as_u64().unwrap(), row["what"].as_str().unwrap()))
        .collect();
    assert_eq!(found, expected);
    for row in results {
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{row}"));
        let kpps = &row["kpps"];
        let (min, median, max) = (
            number(&kpps["min"]),
            number(&kpps["median"]),
            number(&kpps["max"]),
        );
        assert!(0.0 < min && min <= median && median <= max, "{row}");
        let mbits = median * number(&row["size"]) * 8.0 / 1e3;
        assert!((number(&row["mbits"]) / mbits - 1.0).abs() < 1e-9, "{row}");
        assert!(row["frames"].as_u64() > Some(0), "{row}");
        assert_eq!(row["rounds"], 2, "{row}");
        let limit = |limit: &&Value| limit["what"] == "limit" && limit["size"] == row["size"];
        if let Some(limit) = results.iter().find(limit) {
            let quotient = median / number(&limit["kpps"]["median"]);
            let share = number(&row["share_of_limit"]);
            // Six digits of it.
            assert!((share / quotient - 1.0).abs() < 1e-5, "{quotient}: {row}");
        }
    }
}

#[test]
fn of_limit_is_the_quotient_of_the_two_figures_in_the_table() {
    on_every_card_in_turn(|card| {
        let mut command = pinwire(["bench", &format!("qtest:{card}"), "tx"]);
        let short = ["--seconds", "0.02", "--rounds", "4", "--size", "60,1514"];
        let output = command.args(short).assert().success();
        let table = String::from_utf8(output.get_output().stdout.clone()).unwrap();
        let mut limit = f64::NAN;
        let mut checked = 0;
        for line in table.lines().skip(2).filter(|line| line.contains(" – ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(at) = words.iter().position(|word| ["limit", "tx"].contains(word)) else {
                continue;
            };
            let number = |word: &str| -> f64 { word.parse().unwrap_or_else(|_| panic!("{line}")) };
            let (kpps, share) = (number(words[at + 1]), number(words[words.len() - 1]));
            if words[at] == "limit" {
                limit = kpps;
            }
            // Two digits of it.
            assert!((share - kpps / limit).abs() <= 0.005 + 1e-9, "{table}");
            checked += 1;
        }
        assert_eq!(checked, 4, "{table}");
    });
}

#[test]
fn an_interruption_shows_the_rounds_that_were_finished() {
    on_every_card_in_turn(|card| {
        let wire = Wire::new();
        let (here, there) = (wire.to, wire.socket.local_addr().unwrap().port());
        drop(wire);
        let device = format!("qtest:{card},net=udp:{here}:{there}");
        let other = format!("qtest:{card},net=udp:{there}:{here}");
        for what in [
            &["tx"][..],
            &["rx", "--from", &other],
            &["rtt", "--through", &other],
        ] {
            let args = [
                &["bench", &device],
                what,
                &[
                    "--seconds",
                    "0.01",
                    "--rounds",
                    "60000",
                    "--size",
                    "60,1514",
                ],
            ]
            .concat();
            let at = "2 rounds are finished";
            let (code, table) = interrupt_at(&args, at);
            assert_eq!(code, Some(130), "{what:?}: {table}");
            assert!(
                table.contains(" of 120000 rounds, which were finished"),
                "{table}"
            );
            assert!(
                !table.contains("1514") && table.contains("60   "),
                "{table}"
            );

            let (code, text) = interrupt_at(&[&args[..], &["--json"]].concat(), at);
            assert_eq!(code, Some(130), "{what:?}: {text}");
            let report = json(text.as_bytes());
            assert_eq!(report["interrupted"], true, "{report}");
            assert!(report["rounds_finished"].as_u64() >= Some(2), "{report}");
            assert_eq!(report["rounds_planned"], 120_000, "{report}");
            assert!(
                !report["results"].as_array().unwrap().is_empty(),
                "{report}"
            );
        }
    });
}

#[test]
fn tx_stands_beside_the_limit() {
    on_every_card_in_turn(|card| {
        let results = bench(card, &format!("qtest:{card}"), &["tx"]);
        check(
            &results,
            &[(60, "limit"), (60, "tx"), (1514, "limit"), (1514, "tx")],
        );
        for row in &results {
            assert!(row["share_of_limit"].as_f64() > Some(0.0), "{row}");
            assert_eq!(row["lost"], 0);
        }
    });
}

#[test]
fn rx_counts_what_a_socket_sends() {
    on_every_card_in_turn(|card| {
        let wire = Wire::new();
        let from = format!("udp:127.0.0.1:{}", wire.to);
        let results = bench(card, &wire.device(card), &["rx", "--from", &from]);
        check(&results, &[(60, "rx"), (1514, "rx")]);
    });
}

#[test]
fn rx_counts_what_another_card_sends() {
    on_every_card_in_turn(|card| {
        let wire = Wire::new();
        let (here, there) = (wire.to, wire.socket.local_addr().unwrap().port());
        // The other card takes this end of the cable.
        drop(wire);
        let device = format!("qtest:{card},net=udp:{here}:{there}");
        let from = format!("qtest:{card},net=udp:{there}:{here}");
        let results = bench(card, &device, &["rx", "--from", &from]);
        check(
            &results,
            &[(60, "limit"), (60, "rx"), (1514, "limit"), (1514, "rx")],
        );
    });
}

#[test]
fn a_frame_goes_there_and_back_polled_and_by_interrupt() {
    on_every_card_in_turn(|card| {
        let wire = Wire::new();
        let (here, there) = (wire.to, wire.socket.local_addr().unwrap().port());
        drop(wire);
        let device = format!("qtest:{card},net=udp:{here}:{there}");
        let through = format!("qtest:{card},net=udp:{there}:{here}");
        let results = bench(card, &device, &["rtt", "--through", &through]);
        let rows: Vec<_> = results
            .iter()
            .map(|row| (row["size"].as_u64().unwrap(), row["what"].as_str().unwrap()))
            .collect();
        let expected = [
            (60, "poll"),
            (60, "interrupt"),
            (1514, "poll"),
            (1514, "interrupt"),
        ];
        assert_eq!(rows, expected);
        for row in &results {
            let micros = &row["micros"];
            let at = |name: &str| micros[name].as_f64().unwrap_or_else(|| panic!("{row}"));
            assert!(
                0.0 < at("min") && at("min") <= at("median") && at("median") <= at("p99"),
                "{row}"
            );
            assert!(row["trips"].as_u64() > Some(0), "{row}");
            assert_eq!(row["lost"], 0, "{row}");
        }
    });
}

#[test]
fn what_two_cards_forward_arrives() {
    on_every_card_in_turn(|card| {
        // Two cables, with free ports at their ends.
        let ports: Vec<u16> = [Wire::new(), Wire::new()]
            .iter()
            .flat_map(|wire| [wire.to, wire.socket.local_addr().unwrap().port()])
            .collect();
        let plugged = |here: usize, there: usize| {
            format!("qtest:{card},net=udp:{}:{}", ports[here], ports[there])
        };
        let (from, first) = (plugged(0, 1), plugged(1, 0));
        let (second, sink) = (plugged(2, 3), plugged(3, 2));
        let args = ["forward", "--from", &from, "--to", &second, "--sink", &sink];
        let results = bench(card, &first, &args);
        let expected = [60, 1514].map(|size| [(size, "forward"), (size, "forward at 0.8")]);
        check(&results, &expected.concat());
    });
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let refused = |args: &[&str], text: &str| {
        let output = pinwire(["bench", "qtest:e1000"])
            .args(args)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && stderr.contains(text),
            "{stderr}"
        );
    };
    refused(
        &["tx", "--batch", "48"],
        "a power of two, at most half of the ring",
    );
    refused(&["tx", "--size", "59"], "60..=1514");
    refused(&["rx"], "--from");
    refused(
        &["limit", "--kernel", "lo"],
        "--kernel goes with tx, rx and rtt",
    );
    refused(&["rtt"], "--through");
    refused(
        &["tx", "--through", "qtest:e1000"],
        "--through goes with rtt",
    );
    refused(&["limit", "--queues", "2"], "--queues goes with tx");
    refused(
        &["tx", "--from", "udp:127.0.0.1:7000"],
        "--from goes with rx and forward",
    );
    refused(&["rx", "--from", "udp:nowhere"], "udp:127.0.0.1:7000");
}
