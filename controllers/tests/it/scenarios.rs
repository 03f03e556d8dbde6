//! Scenarios as readable text: `tests/scenarios/*.txt`. A line is a command; the lines behind `|` are what follows
//! from it, as written and as it then is. `UPDATE_SCENARIOS=1` writes them anew, for a reader to judge.

use std::fmt::Write;
use std::path::Path;

use podium_proto::mesos::v1::TaskState;
use uuid::Uuid;

use crate::world::{ALL, Push, World};

#[test]
fn scenarios_tell_what_happens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "scenarios are missing in {}", folder.display());
    let mut different = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let told = tell(&text);
        if told == text {
            continue;
        }
        if std::env::var_os("UPDATE_SCENARIOS").is_some() {
            std::fs::write(&file, told).unwrap();
        } else {
            different.push(format!("{}:\n{}", file.display(), difference(&text, &told)));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// The scenario with what follows from each command.
fn tell(text: &str) -> String {
    let mut world = World::new(3);
    let mut push = Push::default();
    let mut told = String::new();
    for line in text.lines().filter(|line| !line.starts_with('|')) {
        let _ = writeln!(told, "{line}");
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut world, &mut push, line)));
        assert!(done.is_ok(), "{line}: see above, after\n{told}{:#?}\n{:#?}", world.log, world.picture());
        for happened in world.log.drain(..) {
            let _ = writeln!(told, "|   {happened}");
        }
        for instance in world.picture() {
            let _ = writeln!(told, "| {instance}");
        }
    }
    told
}

fn run(world: &mut World, push: &mut Push, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[0] {
        "pod" | "change" => {
            push.restart = words[0] == "pod";
            words[1..].iter().for_each(|word| set(push, word));
            world.push(push);
            world.settle();
        }
        "bad" => {
            push.restart = true;
            words[1..].iter().for_each(|word| set(push, word));
            world.push(push);
            let config = world.view().accepted.unwrap().value.config_ms;
            world.bad.insert(config);
            world.settle();
        }
        "delete" => {
            world.delete();
            if words.get(1) != Some(&"unsettled") {
                world.settle();
            }
        }
        "back" => {
            world.go_back();
            world.settle();
        }
        "lose" => {
            world.lose(words[1]);
            world.settle();
        }
        "return" => {
            world.bring_back(words[1]);
            world.settle();
        }
        "fail" => each(world, &words, |world, uuid| world.set_state(uuid, TaskState::TaskFailed)),
        "finish" => each(world, &words, |world, uuid| world.set_state(uuid, TaskState::TaskFinished)),
        "kill" => each(world, &words, |world, uuid| world.set_state(uuid, TaskState::TaskKilled)),
        "order" => match words[1] {
            "kill" => each(world, &words[1..], |world, uuid| world.order(uuid, false)),
            "wipe" => each(world, &words[1..], |world, uuid| world.order(uuid, true)),
            "hurry" => {
                world.hurry();
                world.settle();
            }
            other => panic!("unknown order {other}"),
        },
        "slow" => each(world, &words, |world, uuid| {
            world.slow.insert(uuid);
        }),
        "unhealthy" => each(world, &words, |world, uuid| world.set_health(uuid, false)),
        "healthy" => each(world, &words, |world, uuid| world.set_health(uuid, true)),
        "tick" => world.tick(millis(words[1])),
        "quiet" => {
            assert_eq!(world.next_due(), None, "something is still due");
            ALL.into_iter().for_each(|who| world.decide(who));
            assert!(!world.is_pending(), "{line}: somebody still wants something");
        }
        "keys" => world.log = world.keys.all().map(|key| format!("key {}", key.to_string().split('/').next().unwrap())).collect(),
        other => panic!("unknown command {other}"),
    }
}

/// Changes several at once, and then lets everyone act.
fn each(world: &mut World, words: &[&str], change: impl Fn(&mut World, Uuid)) {
    for word in &words[1..] {
        let place: usize = word.trim_start_matches('i').parse().unwrap();
        let uuid = world.names[place - 1];
        change(world, uuid);
    }
    world.settle();
}

fn set(push: &mut Push, word: &str) {
    if let Some(count) = word.strip_prefix('x') {
        push.instances = count.parse().unwrap();
        return;
    }
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    match name {
        "min" => push.min = value.parse().unwrap(),
        "over" => push.over = value.parse().unwrap(),
        "backoff" => push.backoff = value.parse().unwrap(),
        "checked" => push.checked = true,
        "resident" => push.resident = true,
        "oldest-first" => push.oldest_first = true,
        "unreachable" => {
            push.unreachable = value.split_once('/').map(|(inactive, expunge)| (inactive.parse().unwrap(), expunge.parse().unwrap()))
        }
        other => panic!("unknown setting {other}"),
    }
}

fn millis(text: &str) -> i64 {
    match text.strip_suffix("ms") {
        Some(millis) => millis.parse().unwrap(),
        None => text.strip_suffix('s').unwrap().parse::<i64>().unwrap() * 1000,
    }
}

fn difference(expected: &str, told: &str) -> String {
    let mut text = String::new();
    let (mut left, mut right) = (expected.lines(), told.lines());
    for number in 1.. {
        match (left.next(), right.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                let _ = writeln!(text, "line {number}: expected {:?}, but {:?}", a.unwrap_or(""), b.unwrap_or(""));
                break;
            }
        }
    }
    text
}
