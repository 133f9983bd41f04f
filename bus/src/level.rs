//! Log levels stated by the lines themselves, in JSON or logfmt.

use serde::Deserialize;

/// The severity of a line, in the levels that common loggers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Fine-grained tracing.
    Trace,
    /// Debugging information.
    Debug,
    /// Normal operation.
    Info,
    /// A potential problem.
    Warn,
    /// An operation failed.
    Error,
    /// The program cannot continue.
    Fatal,
}

/// JSON fields that hold the level.
#[derive(Deserialize)]
struct JsonLevel<'a> {
    #[serde(
        borrow,
        default,
        alias = "severity",
        alias = "lvl",
        alias = "log.level",
        alias = "@level"
    )]
    level: Option<Value<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value<'a> {
    Word(#[serde(borrow)] std::borrow::Cow<'a, str>),
    Number(i64),
}

/// logfmt keys that hold the level.
const KEYS: [&[u8]; 3] = [b"level=", b"lvl=", b"severity="];

impl Level {
    /// Returns the level of this name in the spellings of common loggers, ignoring case.
    pub fn named(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "trace" => Self::Trace,
            "debug" | "dbg" => Self::Debug,
            "info" | "information" | "informational" | "notice" | "default" => Self::Info,
            "warn" | "warning" => Self::Warn,
            "error" | "err" => Self::Error,
            "fatal" | "critical" | "crit" | "panic" | "alert" | "emerg" | "emergency" => Self::Fatal,
            _ => return None,
        })
    }

    /// Returns the level of a Bunyan or pino number.
    fn numbered(number: i64) -> Option<Self> {
        Some(match number {
            10 => Self::Trace,
            20 => Self::Debug,
            30 => Self::Info,
            40 => Self::Warn,
            50 => Self::Error,
            60 => Self::Fatal,
            _ => return None,
        })
    }

    /// Returns the level that a line states. `None` if it is neither JSON nor logfmt or states
    /// none.
    pub fn of(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        if text.first() == Some(&b'{') {
            let line: JsonLevel = serde_json::from_slice(text).ok()?;
            return match line.level? {
                Value::Word(word) => Self::named(&word),
                Value::Number(number) => Self::numbered(number),
            };
        }
        let mut words = text.split(|byte| *byte == b' ');
        let value = words.find_map(|word| KEYS.iter().find_map(|key| word.strip_prefix(*key)))?;
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let value = value.strip_suffix(b"\"").unwrap_or(value);
        Self::named(std::str::from_utf8(value).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_read_from_json_and_logfmt_lines() {
        for (line, level) in [
            (r#"{"level":"error","msg":"x"}"#, Some(Level::Error)),
            (r#"{"msg":"level=info","severity":"WARNING"}"#, Some(Level::Warn)),
            (r#"{"level":30,"time":1}"#, Some(Level::Info)),
            (r#"{"level":{"deep":"error"}}"#, None),
            (r#"{"level":"error""#, None),
            ("ts=1 level=warn msg=\"a b\"", Some(Level::Warn)),
            ("lvl=\"crit\" x=y", Some(Level::Fatal)),
            ("my_level=warn", None),
            ("[error] plain words", None),
            ("", None),
        ] {
            assert_eq!(Level::of(line.as_bytes()), level, "{line}");
        }
    }
}
