//! A real client, as it is: pymesos from PyPI runs a command task on the engine of `podium dev`.

use std::path::Path;
use std::process::Command;

use podium_e2e::cluster::{Cluster, Form};

use super::text;

#[test]
fn pymesos_registers_launches_a_command_and_sees_it_finish() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("pymesos");
    let binary = podium_e2e::binary::podium(false);
    let library = binary.ancestors().nth(2).unwrap().join("pymesos-0.3.15");
    let installed = Command::new(sources.join("install")).arg(&library).output().unwrap();
    assert!(installed.status.success(), "pymesos can't be installed: {}{}", text(&installed.stdout), text(&installed.stderr));

    let cluster = Cluster::start(Form::Dev, binary, &["--controllers", "none"]);
    let proof = cluster.folder().join("proof");
    for (command, expected) in [
        (
            format!("echo done > '{}'", proof.display()),
            "registered\nTASK_STARTING \nTASK_RUNNING \nTASK_FINISHED Command exited with status 0\n",
        ),
        ("exit 3".to_owned(), "registered\nTASK_STARTING \nTASK_RUNNING \nTASK_FAILED Command exited with status 3\n"),
    ] {
        let output = Command::new("python3")
            .arg(sources.join("framework.py"))
            .args([&cluster.endpoints.mesos, &command])
            .env("PYTHONPATH", &library)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    }
    assert_eq!(std::fs::read_to_string(proof).unwrap(), "done\n");
}
