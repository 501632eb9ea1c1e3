//! `pinwire ping`, answered by QEMU's own network (`net=user`, which has 10.0.2.2).

use crate::common::require_qemu;
use crate::{json, on_every_card, pinwire};

const USER: &str = "qtest:e1000,net=user";

#[test]
fn pings_of_any_size_come_back_as_they_were() {
    on_every_card(|card| {
        let user = format!("qtest:{card},net=user");
        for size in ["0", "1", "1472", "1473", "9000"] {
            let mut command = pinwire([
                "ping", &user, "10.0.2.2", "-f", "-c", "3", "-W", "10", "-s", size, "--json",
            ]);
            let summary = json(&command.assert().success().get_output().stdout);
            assert_eq!(
                (&summary["sent"], &summary["received"]),
                (&3.into(), &3.into()),
                "{summary}"
            );
            let bad = ["lost", "late", "duplicates", "damaged"];
            assert!(bad.iter().all(|what| summary[what] == 0), "{summary}");
            let times = &summary["rtt_us"];
            let time = |what: &str| times[what].as_f64().unwrap();
            assert!(
                time("min") > 0.0 && time("min") <= time("median"),
                "{summary}"
            );
            assert!(
                time("median") <= time("p99") && time("p99") <= time("max"),
                "{summary}"
            );
        }
    });
}

#[test]
fn people_get_a_line_an_answer_a_summary_and_a_histogram_and_a_picture() {
    if !require_qemu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rtt.svg");
    let path = path.to_str().unwrap();
    let mut command = pinwire([
        "ping", USER, "10.0.2.2", "-c", "3", "-i", "0.05", "--plot", path,
    ]);
    let text = String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap();
    for words in [
        "10.0.2.2 (52:55:0a:00:02:02) from 10.0.2.3 by qtest:e1000: 56 bytes, 1 frame\n",
        "\n1: 56 bytes, ttl 255, ",
        "\n3: 56 bytes, ttl 255, ",
        "received  3\n",
        "  ###",
    ] {
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
    let picture = std::fs::read_to_string(path).unwrap();
    assert!(picture.starts_with("<svg"), "{picture}");
    assert!(
        picture.contains("Intel 82540EM, 56 bytes, polling, 3 answers"),
        "{picture}"
    );
}

#[test]
fn each_way_of_waiting_hears_the_answer() {
    on_every_card(|card| {
        let user = format!("qtest:{card},net=user");
        for how in ["poll", "interrupt", "adaptive"] {
            let mut command = pinwire([
                "ping", &user, "10.0.2.2", "-f", "-c", "20", "--json", "--wait", how,
            ]);
            let summary = json(&command.assert().success().get_output().stdout);
            assert_eq!(summary["received"], 20, "{how}: {summary}");
        }
    });
}

#[test]
fn where_nothing_comes_back_the_exit_code_says_so() {
    on_every_card(|card| {
        let alone = format!("qtest:{card}");
        let via = ["--via", "02:00:00:00:00:02", "--timeout", "0.1", "--json"];
        let mut command = pinwire(["ping", &alone, "10.0.2.2", "-c", "2", "-i", "0.1"]);
        let summary = json(&command.args(via).assert().code(1).get_output().stdout);
        assert_eq!(
            (&summary["lost"], &summary["rtt_us"]["min"]),
            (&2.into(), &().into()),
            "{summary}"
        );
        // Nobody says that the address is his.
        let mut command = pinwire(["ping", &alone, "10.0.2.2", "-c", "1"]);
        let stderr = command.assert().code(1).get_output().stderr.clone();
        assert!(
            String::from_utf8(stderr)
                .unwrap()
                .contains("nobody answered ARP")
        );
    });
}

#[test]
fn what_cannot_be_sent_or_drawn_is_refused() {
    for args in [
        ["--size", "65508"],
        ["--plot", "rtt.gif"],
        ["--count", "0"],
        ["--interval", "0"],
    ] {
        let mut command = pinwire(["ping", "qtest:e1000", "10.0.2.2"]);
        command.args(args).assert().code(2);
    }
}
