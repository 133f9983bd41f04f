//! Credentials of the client commands: an API key, or the netrc entry for the server's host.

use std::{env, fs, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};

/// Returns the `Authorization` header, or `None` without a key and without a netrc entry: a server
/// that requires a key answers 401 then.
pub(super) fn authorization(key: Option<&str>, host: &str) -> Option<String> {
    if let Some(key) = key {
        return Some(format!("Bearer {key}"));
    }
    let (login, password) = find(&fs::read_to_string(netrc_path()?).ok()?, host)?;
    Some(format!("Basic {}", STANDARD.encode(format!("{login}:{password}"))))
}

/// Returns the path that curl and Python use: `NETRC`, `~/.netrc` or `~/_netrc`.
fn netrc_path() -> Option<PathBuf> {
    let variable = env::var_os("NETRC").filter(|path| !path.is_empty()).map(PathBuf::from);
    variable.or_else(|| {
        let home = PathBuf::from(env::var_os("HOME")?);
        [".netrc", "_netrc"]
            .map(|name| home.join(name))
            .into_iter()
            .find(|path| path.is_file())
    })
}

/// Returns login and password of the first entry that matches the host, or of `default`.
fn find(netrc: &str, host: &str) -> Option<(String, String)> {
    let mut words = netrc
        .lines()
        .map(|line| {
            line.split_once('#')
                .filter(|(before, _)| before.trim().is_empty())
                .map_or(line, |(before, _)| before)
        })
        .flat_map(str::split_whitespace);
    let (mut matches, mut login, mut password) = (false, None, None);
    while let Some(word) = words.next() {
        match word {
            "machine" | "default" => {
                if matches && password.is_some() {
                    break;
                }
                matches = word == "default" || words.next() == Some(host);
                (login, password) = (None, None);
            }
            "login" => login = words.next(),
            "password" => password = words.next(),
            // `account` and `macdef` are ignored.
            _ => {}
        }
    }
    let password = password.filter(|_| matches)?;
    Some((login.unwrap_or_default().to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_matching_entry_is_used() {
        let netrc = "# machine 127.0.0.1 login no password no\nmachine a.example login u@x password one\n\
                     machine 127.0.0.1\n  login me@example.com\n  password key\nmachine 127.0.0.1 login b password c\n\
                     default login d password e";
        let found = |host| find(netrc, host).map(|(login, password)| format!("{login}:{password}"));
        assert_eq!(found("127.0.0.1").as_deref(), Some("me@example.com:key"));
        assert_eq!(found("a.example").as_deref(), Some("u@x:one"));
        assert_eq!(found("elsewhere").as_deref(), Some("d:e"));
        assert_eq!(find("machine a login b", "a"), None);
        assert_eq!(find("machine a login b password c", "b"), None);
        assert_eq!(find("", "a"), None);
    }
}
