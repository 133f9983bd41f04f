//! Syntax of label selectors.
//!
//! *Source*: Kubernetes, Labels and Selectors: syntax and character set; `labels.Parse`.

/// Checks a label selector with the syntax of `kubectl -l`.
///
/// # Errors
/// Which requirement is invalid.
pub fn check_label_selector(selector: &str) -> Result<(), String> {
    for requirement in requirements(selector) {
        if !is_requirement(requirement.trim()) {
            return Err(format!(
                "invalid requirement '{}'; use KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY or !KEY, \
                 separated by commas",
                requirement.trim()
            ));
        }
    }
    Ok(())
}

/// Splits a selector at the commas outside of parentheses. An empty selector has no requirement.
fn requirements(selector: &str) -> impl Iterator<Item = &str> {
    let mut in_set = false;
    let is_end = move |c: char| {
        in_set = (in_set || c == '(') && c != ')';
        c == ',' && !in_set
    };
    selector.split(is_end).filter(|_| !selector.trim().is_empty())
}

fn is_requirement(text: &str) -> bool {
    if let Some(key) = text.strip_prefix('!') {
        return is_key(key.trim());
    }
    if let Some((head, set)) = text.split_once('(') {
        let words: Vec<_> = head.split_whitespace().collect();
        let values = set.strip_suffix(')');
        return matches!(words[..], [key, "in" | "notin"] if is_key(key))
            && values.is_some_and(|values| values.split(',').all(|value| is_value(value.trim())));
    }
    for operator in ["!=", "==", "="] {
        if let Some((key, value)) = text.split_once(operator) {
            return is_key(key.trim()) && is_value(value.trim());
        }
    }
    if let Some((key, number)) = text.split_once(['<', '>']) {
        return is_key(key.trim()) && number.trim().parse::<i64>().is_ok();
    }
    is_key(text)
}

/// An optional DNS subdomain and a slash, then a name.
fn is_key(key: &str) -> bool {
    let is_subdomain = |prefix: &str| {
        let is_label = |label: &str| {
            label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        prefix.len() <= 253 && prefix.split('.').all(is_label)
    };
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && !name.is_empty() && is_value(name),
        None => !key.is_empty() && is_value(key),
    }
}

/// Empty, or at most 63 characters, of which the first and the last are alphanumeric.
fn is_value(value: &str) -> bool {
    let is_edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= 63
        && is_edge(bytes.first())
        && is_edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_of_kubectl_are_accepted() {
        for selector in [
            "",
            "app",
            "!app",
            "! app",
            "app=shop",
            "app = shop, tier!=web",
            "app==shop",
            "app=",
            "tributary.dev/app in (a, b),x",
            "env notin (dev,test)",
            "env in(dev)",
            "size>5",
        ] {
            assert_eq!(check_label_selector(selector), Ok(()), "{selector}");
        }
    }

    #[test]
    fn invalid_selectors_are_refused() {
        for selector in [
            "app in",
            "app in a",
            "app in (a",
            "app=a b",
            "=shop",
            "app=shop,",
            "a/b/c",
            "App/x/",
            "app=-x",
            "size>big",
            "app(a)",
            "app==a=b",
        ] {
            assert!(check_label_selector(selector).is_err(), "{selector}");
        }
    }
}
