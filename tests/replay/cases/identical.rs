// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was recorded once is replayed again and again, and is the same each time.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::super::Outcome;
use super::super::lab::{FILE, Lab, Place, STATE, contents};

/// How often, but for who wants more (`TTVM_REPLAYS`, ten in `make check-both`).
const REPLAYS: usize = 2;

pub fn disk_clocks_and_random_numbers(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,clocks,disk,clocks,random", "");
    place.record(&[]);
    let console = contents(&place.recording().console());
    for word in ["random ", "rtc ", "written ", "end "] {
        assert!(console.contains(word), "the guest did not do it all:\n{console}");
    }
    each_time(&place);
    Ok(())
}

pub fn network(lab: &Lab) -> Outcome {
    let place = lab.place();
    // Every answer is another one, and at replay there is nobody to answer.
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    place.describe(&format!("net,tcp:{port},tcp:{port}"), "");
    place.edit(FILE, "[[vif]]", "[[vif]]\noutside = true");
    std::thread::spawn(move || {
        for connection in server.incoming().take(2) {
            let mut connection = connection?;
            let _ = connection.read(&mut [0; 100])?;
            let now = format!("{:?}\n", std::time::SystemTime::now()).repeat(1000);
            connection.write_all(now.as_bytes())?;
        }
        std::io::Result::Ok(())
    });
    place.record(&[]);
    let console = contents(&place.recording().console());
    let nothing = "d41d8cd98f00b204e9800998ecf8427e";
    assert!(
        console.contains("3 packets received") && console.contains("fetched ") && !console.contains(nothing),
        "the guest did not reach the host:\n{console}"
    );
    each_time(&place);
    Ok(())
}

fn each_time(place: &Place) {
    let instructions = place.recording().manifest().result.as_ref().map(|it| it.instructions);
    let wanted = std::env::var("TTVM_REPLAYS").ok().and_then(|count| count.parse().ok());
    let times = wanted.unwrap_or(REPLAYS);
    for _ in 0..times {
        place.replay(&["--verify"]).expect(0, &["IDENTICAL: demo "]);
    }
    let replays = place.recording().replays().expect("remembered replays");
    assert_eq!(
        (replays.identical, instructions.is_some()),
        (u32::try_from(times).expect("few"), true)
    );
    let left: Vec<_> = std::fs::read_dir(place.path(STATE).join("overlays"))
        .expect("overlays")
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
