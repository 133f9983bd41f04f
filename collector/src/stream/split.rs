//! Splits long lines.

/// Returns where to split content longer than `max`: at `max`, or up to three bytes before it to
/// keep a UTF-8 character whole.
///
/// Depends only on the bytes up to `max`, so that a line that is read again is split, and numbered,
/// in the same way.
pub fn split_point(content: &[u8], max: usize) -> usize {
    let continues = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
    if !continues(content[max]) {
        return max;
    }
    // At most three bytes continue a character; otherwise the content is not UTF-8 and is split
    // anywhere.
    let lead = (max.saturating_sub(3)..max).rev().find(|at| !continues(content[*at]));
    match lead {
        Some(at) if at > 0 && content[at] >= 0b1100_0000 => at,
        _ => max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_is_not_split_and_invalid_utf8_is_split_anywhere() {
        assert_eq!(split_point("abcd".as_bytes(), 3), 3);
        assert_eq!(split_point("ab\u{e9}d".as_bytes(), 3), 2);
        assert_eq!(split_point("a\u{1f980}d".as_bytes(), 4), 1);
        assert_eq!(split_point(&[0x80; 8], 5), 5);
        assert_eq!(split_point(&[0xff; 8], 5), 5);
    }

    proptest! {
        #[test]
        fn valid_text_is_split_into_valid_text(text in "\\PC{20,60}", max in 4usize..16) {
            let mut rest = text.as_bytes();
            while rest.len() > max {
                let (part, remainder) = rest.split_at(split_point(rest, max));
                prop_assert!(!part.is_empty() && part.len() <= max);
                prop_assert!(std::str::from_utf8(part).is_ok());
                rest = remainder;
            }
        }
    }
}
