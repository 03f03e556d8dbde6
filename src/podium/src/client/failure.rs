//! How a client command can fail, and the exit code that says so to scripts.

use std::process::ExitCode;

/// Why a command did not do what it was asked. The numbers are documented in `podium --help`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was tried and did not work out (1).
    #[error("{0}")]
    Failed(String),
    /// Someone else changed the pod meanwhile (1).
    #[error("{0}")]
    Changed(String),
    /// The command line makes no sense (2).
    #[error("{0}")]
    Usage(String),
    /// There is no such pod (3).
    #[error("{0}")]
    NotFound(String),
    /// The definition is not valid (4): one line for every violation.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// It did not happen in time (5).
    #[error("{0}")]
    TimedOut(String),
    /// Nobody reads what is printed any more (0): they have seen enough.
    #[error("nobody reads the output any more")]
    Closed,
    /// Nobody answers there (6).
    #[error("{0}")]
    Unreachable(String),
}

impl Failure {
    /// The number that the process ends with.
    pub fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Failed(_) | Self::Changed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Refused(_) => 4,
            Self::TimedOut(_) => 5,
            Self::Unreachable(_) => 6,
        }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.code())
    }
}

/// Writing to stdout or stderr failed: usually nobody reads any more.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(format!("writing the answer: {error}"))
    }
}
