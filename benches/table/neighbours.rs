//! What one noisy neighbour does to another client.

use std::path::PathBuf;

use crate::{
    Scale,
    figures::{Row, Target, median, short},
    stage::{Ask, Running, Stage},
};

pub fn measure(stage: &Stage, scale: &Scale) -> Vec<Row> {
    let count = (scale.requests / 4).max(20);
    let victim = || stage.ours(&stage.client, "held", Ask::Read(1), &[count]);
    let socket = stage.world.socket();
    let noises = [
        ("a registered client floods", "flood", &stage.client, Ask::Read(1)),
        ("a registered client never reads", "deaf", &stage.client, Ask::Read(100)),
        ("a stranger reconnects without pause", "knock", &stage.stranger, Ask::Read(1)),
    ];
    let one = |(what, how, program, ask): (&str, &str, &PathBuf, Ask)| {
        let request = stage.file(ask);
        let pairs: Vec<(f64, f64)> = (0..scale.rounds.min(9))
            .map(|_| {
                let quiet = victim();
                let _noise = Running::beside(stage.command(program, &socket, how, &request).arg("60"));
                // the first answers show that it has begun to press
                victim();
                (victim().within(0.99), quiet.within(0.99))
            })
            .collect();
        let loud = median(pairs.iter().map(|pair| pair.0));
        Row {
            what: format!("p99 of a read while {what}"),
            ours: format!("{} µs", short(loud)),
            floor: format!("{} µs: alone", short(median(pairs.iter().map(|pair| pair.1)))),
            ratio: median(pairs.iter().map(|(loud, quiet)| loud / quiet)),
            target: Target::AtMost(3.0),
            spread: None,
        }
    };
    noises.into_iter().map(one).collect()
}
