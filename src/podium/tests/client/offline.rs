//! Commands that need no server.

use crate::world::{pod, run};

async fn validate(input: &str) -> crate::world::Ran {
    run(&["validate", "-f", "-"], &[("PODIUM_SERVER", "http://127.0.0.1:1")], input).await
}

#[tokio::test]
async fn valid_definitions_are_named_one_a_line() {
    let ran = validate(&format!("[{},{}]\n{}", pod("/a", 1), pod("/b", 1), pod("/c", 1))).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert_eq!(ran.out, "stdin(1): /a is valid\nstdin(2): /b is valid\nstdin(3): /c is valid\n");
}

#[tokio::test]
async fn every_mistake_of_every_definition_is_told_at_once_on_stderr() {
    let typo = pod("/a", 1).replacen("\"networks\"", "\"netwroks\":[],\"networks\"", 1);
    let ran = validate(&format!("{typo}{}", pod("B", 1))).await;
    assert_eq!((ran.code, ran.out.as_str()), (4, ""), "{ran:?}");
    let lines: Vec<&str> = ran.err.lines().collect();
    assert!(lines.iter().any(|line| line.starts_with("error: stdin(1): /netwroks: ") && line.contains("networks")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("error: stdin(2): /id: ")), "{lines:?}");
}

#[tokio::test]
async fn what_is_not_json_is_named_with_line_and_column() {
    let ran = validate("{\n  \"id\": }\n").await;
    assert_eq!((ran.code, ran.err.as_str()), (4, "error: stdin:2:9: not JSON: expected value\n"));
    assert_eq!(validate("").await.code, 4);
}

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    for args in [&["validate"][..], &["scale", "/a"], &["scale", "/a", "many"], &["nonsense"], &["apply", "-f", "-", "--timeout", "soon"]] {
        assert_eq!(run(args, &[], "").await.code, 2, "{args:?}");
    }
    assert_eq!(run(&["validate", "-f", "/nonexistent/pod.json"], &[], "").await.code, 2);
    assert_eq!(run(&["get", "pods", "--server", "ftp://localhost"], &[], "").await.code, 2);
}

#[tokio::test]
async fn a_server_that_is_not_there_ends_with_6_and_says_where_it_was_sought() {
    let ran = run(&["get", "pods", "--server", "http://127.0.0.1:1"], &[], "").await;
    assert_eq!((ran.code, ran.out.as_str()), (6, ""), "{ran:?}");
    assert!(ran.err.contains("127.0.0.1:1"), "{ran:?}");
}

#[tokio::test]
async fn completions_and_version_need_nobody() {
    let ran = run(&["completions", "bash"], &[], "").await;
    assert!(ran.code == 0 && ran.out.contains("_podium"), "{ran:?}");
    let ran = run(&["version", "--server", "http://127.0.0.1:1", "-o", "json"], &[], "").await;
    let version: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &version["client"], &version["server"]), (0, &env!("CARGO_PKG_VERSION").into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn help_shows_examples_and_exit_codes() {
    let ran = run(&["--help"], &[], "").await;
    assert!(ran.out.contains("Exit codes:"), "{}", ran.out);
    for command in ["apply", "status", "scale", "delete", "validate", "diff", "get", "completions"] {
        let ran = run(&[command, "--help"], &[], "").await;
        assert!(ran.code == 0 && ran.out.contains("Examples:"), "{command}: {}", ran.out);
    }
}
