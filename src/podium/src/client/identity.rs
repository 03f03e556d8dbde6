//! Who we are to a server: a bearer token or a password, from a file or from the environment and never from the command line.

use std::path::Path;

use base64::Engine as _;
use http::header::HeaderValue;

use super::failure::Failure;
use crate::cli::ServerArgs;

/// The token, where no file holds it.
const TOKEN: &str = "PODIUM_TOKEN";

/// The header that says who we are; `None`: nobody asked.
pub fn authorization(args: &ServerArgs) -> Result<Option<HeaderValue>, Failure> {
    let value = match (&args.token_file, &args.credentials_file) {
        (Some(path), _) => Some((format!("Bearer {}", line("--token-file", path)?), "the token")),
        (None, Some(path)) => Some((basic(&line("--credentials-file", path)?), "the user and password")),
        (None, None) => std::env::var(TOKEN).ok().filter(|token| !token.is_empty()).map(|token| (format!("Bearer {token}"), TOKEN)),
    };
    let Some((value, whence)) = value else { return Ok(None) };
    // The error of a header repeats its text.
    let mut value = HeaderValue::try_from(value).map_err(|_| Failure::Usage(format!("{whence} holds characters that no token has")))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn basic(pair: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// The first line of a file.
fn line(flag: &str, path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{flag} {}: {error}", path.display())))?;
    match text.lines().next().map(str::trim).filter(|line| !line.is_empty()) {
        Some(line) => Ok(line.to_owned()),
        None => Err(Failure::Usage(format!("{flag} {}: its first line is empty", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(token: Option<&Path>, credentials: Option<&Path>) -> ServerArgs {
        let (token_file, credentials_file) = (token.map(Path::to_owned), credentials.map(Path::to_owned));
        ServerArgs { server: String::new(), token_file, credentials_file, ca_file: None }
    }

    #[test]
    fn a_file_becomes_a_header_that_is_not_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "me:hunter2\nci sha256:0 read /\n").unwrap();
        let header = |args| authorization(&args).map(Option::unwrap);
        assert_eq!(header(args(Some(&path), None)).unwrap(), "Bearer me:hunter2");
        assert_eq!(header(args(None, Some(&path))).unwrap(), "Basic bWU6aHVudGVyMg==");
        assert!(!format!("{:?}", header(args(Some(&path), None)).unwrap()).contains("hunter2"));
        std::fs::write(&path, "hunter2\u{1}").unwrap();
        let error = header(args(Some(&path), None)).unwrap_err().to_string();
        assert!(error.contains("the token") && !error.contains("hunter2"), "{error}");
        std::fs::write(&path, "\n").unwrap();
        assert!(header(args(Some(&path), None)).unwrap_err().to_string().contains("--token-file"));
    }
}
