//! Where long lines are cut.

/// Where a content longer than `most` is cut: at `most`, or up to three bytes before it so that no UTF-8 character is torn.
///
/// Looks only at the bytes up to the one at `most`, so that the cuts depend on the line alone and not on how it arrived: a line that is read again is
/// cut, and so numbered, alike.
pub fn cut_at(content: &[u8], most: usize) -> usize {
    let continues = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
    if !continues(content[most]) {
        return most;
    }
    // At most three bytes continue a character; what looks otherwise is no UTF-8 and is cut anywhere.
    let lead = (most.saturating_sub(3)..most).rev().find(|at| !continues(content[*at]));
    match lead {
        Some(at) if at > 0 && content[at] >= 0b1100_0000 => at,
        _ => most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_is_not_torn_and_rubbish_is_cut_anyway() {
        assert_eq!(cut_at("abcd".as_bytes(), 3), 3);
        assert_eq!(cut_at("ab\u{e9}d".as_bytes(), 3), 2);
        assert_eq!(cut_at("a\u{1f980}d".as_bytes(), 4), 1);
        assert_eq!(cut_at(&[0x80; 8], 5), 5);
        assert_eq!(cut_at(&[0xff; 8], 5), 5);
    }

    proptest! {
        #[test]
        fn text_is_cut_into_text(text in "\\PC{20,60}", most in 4usize..16) {
            let mut rest = text.as_bytes();
            while rest.len() > most {
                let (part, more) = rest.split_at(cut_at(rest, most));
                prop_assert!(!part.is_empty() && part.len() <= most);
                prop_assert!(std::str::from_utf8(part).is_ok());
                rest = more;
            }
        }
    }
}
