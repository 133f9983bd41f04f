//! Random values that several programs print.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Returns one of `from` at random.
pub(super) fn pick<'a>(random: &mut StdRng, from: &[&'a str]) -> &'a str {
    from.choose(random).copied().unwrap_or_default()
}

/// Generates a request ID in the format of Phoenix and Heroku.
pub(super) fn request_id(random: &mut StdRng) -> String {
    (0..20)
        .map(|_| char::from(*ID_LETTERS.choose(random).unwrap_or(&b'A')))
        .collect()
}

const ID_LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
