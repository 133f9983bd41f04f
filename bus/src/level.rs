//! The level that a line names itself, where it is JSON or logfmt.

use serde::Deserialize;

/// How bad it is, in the words that loggers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Every step.
    Trace,
    /// For who looks for a mistake.
    Debug,
    /// As it should be.
    Info,
    /// Not yet bad.
    Warn,
    /// Something failed.
    Error,
    /// All of it failed.
    Fatal,
}

/// The fields in which loggers put it.
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

/// The keys of logfmt.
const KEYS: [&[u8]; 3] = [b"level=", b"lvl=", b"severity="];

impl Level {
    /// The level of this name, in the spellings of the common loggers, whatever its case.
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

    /// Bunyan's and pino's numbers.
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

    /// The level that a line names. `None` where it is neither JSON nor logfmt, or names none.
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
    fn a_line_names_its_level_in_json_or_logfmt() {
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
