//! Line templates: parsed once, written many times.

use bytes::{BufMut, BytesMut};

use crate::scenario::LinePlan;

/// A parsed line template.
pub(crate) struct LineTemplate {
    parts: Vec<Part>,
    size: Option<usize>,
    stderr_every: Option<u64>,
}

enum Part {
    Text(Vec<u8>),
    Seq,
}

/// Identity of a container: values of the template placeholders.
#[derive(Debug, Clone)]
pub(crate) struct ContainerIdentity {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
}

impl LineTemplate {
    /// Parses a plan's template; unknown placeholders stay as they are.
    pub(crate) fn new(plan: &LinePlan, identity: &ContainerIdentity) -> Self {
        let text = plan
            .text
            .replace("{pod}", &identity.pod)
            .replace("{namespace}", &identity.namespace)
            .replace("{container}", &identity.container)
            .replace(['\n', '\r'], " ");
        let mut parts = Vec::new();
        for (index, literal) in text.split("{seq}").enumerate() {
            if index > 0 {
                parts.push(Part::Seq);
            }
            parts.push(Part::Text(literal.as_bytes().to_vec()));
        }
        Self {
            parts,
            size: plan.size,
            stderr_every: plan.stderr_every,
        }
    }

    /// Returns whether line `seq` goes to standard error.
    pub(crate) fn is_stderr(&self, seq: u64) -> bool {
        self.stderr_every.is_some_and(|every| seq % every == every - 1)
    }

    /// Writes the content of line `seq`, padded or cut to the planned size.
    pub(crate) fn write(&self, seq: u64, out: &mut BytesMut) {
        let start = out.len();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.put_slice(text),
                Part::Seq => put_number(seq, out),
            }
        }
        if let Some(size) = self.size {
            out.truncate(start + size);
            while out.len() < start + size {
                let missing = start + size - out.len();
                out.put_slice(&PADDING[..missing.min(PADDING.len())]);
            }
        }
    }
}

fn put_number(mut number: u64, out: &mut BytesMut) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(&digits[start..]);
}

/// Starts with a space, which separates the content from the padding.
const PADDING: &[u8] = b" abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str, size: Option<usize>, seq: u64) -> String {
        let plan = LinePlan {
            lines: 0,
            rate: 0.0,
            size,
            text: text.to_owned(),
            stderr_every: None,
        };
        let identity = ContainerIdentity {
            namespace: "n".into(),
            pod: "p".into(),
            container: "c".into(),
        };
        let mut out = BytesMut::new();
        LineTemplate::new(&plan, &identity).write(seq, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn placeholders_are_replaced() {
        assert_eq!(
            render("{namespace}/{pod}/{container} {seq}!", None, 1203),
            "n/p/c 1203!"
        );
        assert_eq!(render("line {seq}", None, 0), "line 0");
    }

    #[test]
    fn a_line_has_exactly_the_planned_size() {
        assert_eq!(render("line {seq}", Some(12), 7), "line 7 abcde");
        assert_eq!(render("line {seq}", Some(3), 7), "lin");
        assert_eq!(render("line {seq}", Some(300), 7).len(), 300);
    }
}
