//! Addresses on the command line and in the environment: they hold no password, and one that does is refused without a word of it.

use std::ffi::OsStr;

use clap::builder::{StringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

/// Reads an address. clap's own refusals would repeat what was given, for every log to keep.
#[derive(Debug, Clone, Copy)]
pub struct Address;

impl TypedValueParser for Address {
    type Value = String;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        let refused = |reason: &str| {
            let flag = argument.map(ToString::to_string).unwrap_or_default();
            Error::raw(ErrorKind::ValueValidation, format!("{flag}: {reason}\n")).with_cmd(command)
        };
        // What is no text may hold one as well.
        let text = StringValueParser::new().parse_ref(command, argument, value).map_err(|_| refused("an address is text"))?;
        match judge(&text) {
            None => Ok(text),
            Some(reason) => Err(refused(reason)),
        }
    }
}

/// Why a text is no address for us. An `@` anywhere is enough: what is not quite a URL is no reason to print it.
fn judge(text: &str) -> Option<&'static str> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    if text.contains('@') {
        Some("name and password can't stand in an address: there are flags that name files for them")
    } else if rest.trim_start_matches('/').is_empty() {
        Some("an address is missing")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn an_address_holds_no_password_and_the_refusal_does_not_repeat_it() {
        let passwords = ["http://me:hunter2@10.0.0.1:2379", "me:hunter2@host", "http:/me:hunter2@host", "http:\\\\me:hunter2@host"];
        for bad in passwords {
            for line in [
                vec!["podium", "server", "--mesos", "10.0.0.1:5050", "--etcd", bad],
                vec!["podium", "server", "--mesos", "10.0.0.1:5050", "--etcd", "10.0.0.1:2379", "--etcd", bad],
                vec!["podium", "get", "pods", "--server", bad],
                vec!["podium", "apply", "-f", "x", "--server", bad],
            ] {
                let error = Cli::try_parse_from(line).unwrap_err();
                let text = error.to_string();
                assert!(!text.contains("hunter2") && text.contains("password") && error.exit_code() == 2, "{text}");
            }
        }
        for bad in ["", "http://", "http:///"] {
            assert!(Cli::try_parse_from(["podium", "get", "pods", "--server", bad]).is_err(), "{bad}");
        }
        for good in ["http://10.0.0.1:2379", "10.0.0.1:2379", "https://[::1]:2379/", "https://proxy/service/marathon"] {
            assert!(Cli::try_parse_from(["podium", "get", "pods", "--server", good]).is_ok(), "{good}");
        }
    }
}
